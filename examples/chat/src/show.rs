//! Sentences for people. Whatever others wrote passes through [`clean`], so that it cannot steer the terminal.

use serde_json::Value;

use crate::once::By;
use crate::request::Request;

/// What was asked, as far as the sentences depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Id,
    Status,
    Backup,
    Contacts,
    Contact,
    Send,
    Cancel,
    History,
    Files,
    File,
}

impl Command {
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Id {} => Self::Id,
            Request::Status {} | Request::Events { .. } => Self::Status,
            Request::Backup { .. } => Self::Backup,
            Request::Contacts {} => Self::Contacts,
            Request::ContactAdd { .. }
            | Request::ContactAccept { .. }
            | Request::ContactReject { .. }
            | Request::ContactBlock { .. }
            | Request::ContactUnblock { .. }
            | Request::ContactArchive { .. }
            | Request::ContactRename { .. }
            | Request::ContactConnect { .. } => Self::Contact,
            Request::Send { .. } => Self::Send,
            Request::Cancel { .. } => Self::Cancel,
            Request::History { .. } => Self::History,
            Request::Files {} => Self::Files,
            Request::FileOffer { .. }
            | Request::FileAccept { .. }
            | Request::FileDecline { .. }
            | Request::FileCancel { .. } => Self::File,
        }
    }
}

/// What came of a command, in lines.
pub(crate) fn lines(command: Command, value: &Value, by: By) -> String {
    match command {
        Command::Id => format!("{}\n", text(value, "address")),
        Command::Status => status(value, by),
        Command::Backup => format!("copied to {}\n", text(value, "folder")),
        Command::Contacts => {
            list(&value["contacts"], "no contacts: `hcp-chat contact add ADDRESS` asks somebody", contact)
        }
        Command::Contact => contact(&value["contact"]) + waits(value["contact"]["state"] == "request_queued", by),
        Command::Send => {
            let id = text(value, "message");
            match (by, value["state"].as_str()) {
                (By::Offline, _) => format!("queued: `hcp-chat daemon` delivers it ({id})\n"),
                (By::Daemon, Some("queued")) => format!("queued until the contact can be reached ({id})\n"),
                (By::Daemon, state) => format!("{} ({id})\n", clean(state.unwrap_or_default())),
            }
        }
        Command::Cancel => format!("cancelled ({})\n", text(value, "message")),
        Command::History => list(&value["messages"], "nothing was written yet", message),
        Command::Files => list(&value["transfers"], "no files", transfer),
        Command::File => {
            let open = matches!(value["transfer"]["state"].as_str(), Some("offered" | "running"));
            transfer(&value["transfer"]) + waits(open, by)
        }
    }
}

fn waits(waits: bool, by: By) -> &'static str {
    if waits && by == By::Offline { "`hcp-chat daemon` goes on with it\n" } else { "" }
}

fn status(value: &Value, by: By) -> String {
    let network = match by {
        By::Daemon => text(value, "network"),
        By::Offline => "offline: no daemon runs".to_owned(),
    };
    format!(
        "address   {}\nname      {}\nnetwork   {network}\ncontacts  {} accepted, {} to be answered\n",
        text(value, "address"),
        text(value, "name"),
        value["accepted"],
        value["pending"]
    )
}

fn list(values: &Value, empty: &str, line: fn(&Value) -> String) -> String {
    match values.as_array() {
        Some(values) if !values.is_empty() => values.iter().map(line).collect(),
        _ => format!("{empty}\n"),
    }
}

fn contact(contact: &Value) -> String {
    let mut line = format!("{}  {}", text(contact, "address"), text(contact, "state").replace('_', " "));
    for (field, before) in [("petname", "  "), ("name", "  calls itself ")] {
        if contact[field].as_str().is_some_and(|value| !value.is_empty()) {
            line += &format!("{before}{}", text(contact, field));
        }
    }
    if !matches!(contact["presence"].as_str(), Some("offline") | None) {
        line += &format!("  is {}", text(contact, "presence").replace('_', " "));
    }
    line.push('\n');
    if contact["state"] == "pending" && contact["greeting"].as_str().is_some_and(|greeting| !greeting.is_empty()) {
        line += &format!("    {}\n", text(contact, "greeting"));
    }
    line
}

fn message(message: &Value) -> String {
    let time = utc(message["time_ms"].as_u64().unwrap_or(0));
    if message["direction"] == "incoming" {
        return format!("{time}  < {}\n", text(message, "text"));
    }
    let mut state = text(message, "state");
    if message["reason"].is_string() {
        state += &format!(": {}", text(message, "reason"));
    }
    format!("{time}  > {}  [{state}, {}]\n", text(message, "text"), text(message, "id"))
}

fn transfer(transfer: &Value) -> String {
    let way = if transfer["direction"] == "incoming" { "from" } else { "to" };
    let mut line = format!(
        "{}  {}  {} of {} bytes  {}  {way} {}",
        text(transfer, "id"),
        text(transfer, "state"),
        transfer["done"],
        transfer["size"],
        text(transfer, "name"),
        text(transfer, "contact"),
    );
    if transfer["reason"].is_string() {
        line += &format!("  ({})", text(transfer, "reason").replace('_', " "));
    }
    line + "\n"
}

fn text(value: &Value, field: &str) -> String {
    clean(value[field].as_str().unwrap_or_default())
}

/// Leaves out what a terminal obeys, and marks that turn the direction of writing; further lines are indented.
fn clean(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\n    "),
            '\t' => shown.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

/// Day and minute in UTC, from milliseconds since 1970. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn utc(milliseconds: u64) -> String {
    let minutes = milliseconds / 60_000;
    let days = minutes / 1440 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}b\r\nc\u{7}";
        let value = json!({"messages": [{"direction": "incoming", "text": hostile, "time_ms": 0}]});
        let shown = lines(Command::History, &value, By::Daemon);
        assert_eq!(shown, "1970-01-01 00:00  < a[2J31mb\n    c\n");
        let value = json!({"contact": {"address": "x", "state": "pending", "name": hostile, "greeting": hostile}});
        let shown = lines(Command::Contact, &value, By::Daemon);
        assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r', '\u{7}']), "{shown:?}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_200, "2024-03-01 00:00"),
            (1_735_689_599, "2024-12-31 23:59"),
            (4_107_542_400, "2100-03-01 00:00"),
        ] {
            assert_eq!(utc(seconds * 1000), expected);
        }
    }

    #[test]
    fn a_message_that_waits_says_who_delivers_it() {
        let value = json!({"message": "abc", "state": "queued"});
        assert_eq!(lines(Command::Send, &value, By::Offline), "queued: `hcp-chat daemon` delivers it (abc)\n");
        assert_eq!(lines(Command::Send, &value, By::Daemon), "queued until the contact can be reached (abc)\n");
    }
}
