//! What was measured: a line for people as soon as it is known, a table at the end, and JSON for programs.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;

use serde::Serialize;

use crate::Failure;
use crate::measure::Ratio;

/// What the design asks of a ratio.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
}

impl Goal {
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::MoreThan(goal) => value > goal,
            Self::AtMost(goal) => value <= goal,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(goal) => format!(">= {}", number(goal)),
            Self::MoreThan(goal) => format!("> {}", number(goal)),
            Self::AtMost(goal) => format!("<= {}", number(goal)),
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub group: &'static str,
    pub what: String,
    /// A ratio unless `unit` says what else.
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub unit: &'static str,
    pub goal: Option<Goal>,
    pub met: Option<bool>,
    /// Times and sizes, for orientation.
    pub note: String,
}

/// Everything that a run found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    /// What was not measured, and why.
    pub left_out: Vec<String>,
}

impl Report {
    /// Adds a ratio: how many times as good this library is.
    pub fn ratio(
        &mut self,
        group: &'static str,
        what: impl Into<String>,
        ratio: Ratio,
        goal: Option<Goal>,
        note: String,
    ) {
        self.value(group, what, ratio, "x", goal, note);
    }

    /// Adds a value with a unit of its own.
    pub fn value(
        &mut self,
        group: &'static str,
        what: impl Into<String>,
        ratio: Ratio,
        unit: &'static str,
        goal: Option<Goal>,
        note: String,
    ) {
        let Ratio { median: value, low, high } = ratio;
        let met = goal.map(|goal| goal.met(value));
        let row = Row { group, what: what.into(), value, low, high, unit, goal, met, note };
        if self.rows.last().is_none_or(|last| last.group != group) {
            println!("\n{group}");
        }
        println!("  {}", line(&row));
        self.rows.push(row);
    }

    pub fn left_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("\nnot measured: {what}");
        self.left_out.push(what);
    }

    /// Prints what has a goal, and says which goals were missed.
    pub fn print_goals(&self) {
        println!("\nGoals");
        for row in self.rows.iter().filter(|row| row.goal.is_some()) {
            println!("  {:<15} {}", row.group, line(row));
        }
        let missed = self.rows.iter().filter(|row| row.met == Some(false)).count();
        let all = self.rows.iter().filter(|row| row.met.is_some()).count();
        println!("\n{} of {all} goals met", all - missed);
        for what in &self.left_out {
            println!("not measured: {what}");
        }
    }

    /// Writes all of it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), Failure> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)?;
        println!("all of it as JSON: {}", file.display());
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let spread =
        if row.low == row.high { String::new() } else { format!("({}–{})", number(row.low), number(row.high)) };
    let goal = row.goal.map_or_else(String::new, Goal::text);
    let verdict = match row.met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    };
    let value = format!("{} {}", number(row.value), row.unit);
    format!("{:<66} {value:>12} {spread:<16} {goal:<9} {verdict:<7} {}", row.what, row.note)
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

/// Bytes per second, for people.
pub fn rate(bytes: usize, seconds: f64) -> String {
    format!("{} MiB/s", number(bytes as f64 / seconds / f64::from(1 << 20)))
}

/// A time, for people.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{} s", number(s)),
        s if s >= 1e-3 => format!("{} ms", number(s * 1e3)),
        s if s >= 1e-6 => format!("{} µs", number(s * 1e6)),
        s => format!("{} ns", number(s * 1e9)),
    }
}
