//! What each request does to a profile. It does not matter whether the profile is online.

use hcp_core::error::ErrorKind;
use hcp_core::identity::OnionAddress;
use hcp_core::messenger::{
    ContactError, ContactState, EventsError, IdError, MAX_PAGE, MessageError, Messenger, ProfileError, TransferError,
};
use hcp_core::network::ListenerStatus;
use serde_json::{Value, json};

use crate::failure::chain;
use crate::json;
use crate::request::{Refusal, Request};

/// Messages of a history unless the request says how many.
const USUAL_HISTORY: usize = 50;
/// Bytes of text that one history returns at most; with it a reply stays below [`crate::lines::MAX_REPLY`].
pub(crate) const MAX_HISTORY: usize = 2 * 1024 * 1024;

/// Fulfils a request; the value is what stands behind `ok` in the reply.
pub(crate) async fn execute(messenger: &Messenger, request: Request) -> Result<Value, Refusal> {
    match request {
        Request::Id {} => Ok(json!({"address": messenger.address().to_string(), "name": messenger.name().await?})),
        Request::Status {} => status(messenger).await,
        Request::Backup { folder } => {
            messenger.back_up(absolute(folder.clone())?).await?;
            Ok(json!({"folder": folder}))
        }
        Request::Contacts {} => {
            let contacts = messenger.contacts().await?;
            Ok(json!({"contacts": contacts.iter().map(json::contact).collect::<Vec<_>>()}))
        }
        Request::ContactAdd { address, petname, greeting } => {
            let address = parse_address(&address)?;
            messenger.request(address, &petname, &greeting).await?;
            contact(messenger, address).await
        }
        Request::ContactAccept { contact: who } => {
            let address = resolve(messenger, &who).await?;
            messenger.accept(address).await?;
            contact(messenger, address).await
        }
        Request::ContactReject { contact: who } => {
            let address = resolve(messenger, &who).await?;
            messenger.reject(address).await?;
            contact(messenger, address).await
        }
        Request::ContactBlock { contact: who } => {
            let address = resolve(messenger, &who).await?;
            messenger.block(address).await?;
            contact(messenger, address).await
        }
        Request::ContactUnblock { contact: who } => {
            let address = resolve(messenger, &who).await?;
            messenger.unblock(address).await?;
            contact(messenger, address).await
        }
        Request::ContactArchive { contact: who } => {
            let address = resolve(messenger, &who).await?;
            messenger.archive(address).await?;
            contact(messenger, address).await
        }
        Request::ContactRename { contact: who, petname } => {
            let address = resolve(messenger, &who).await?;
            messenger.rename(address, &petname).await?;
            contact(messenger, address).await
        }
        Request::ContactConnect { contact: who } => {
            let address = resolve(messenger, &who).await?;
            messenger.connect_now(address).await?;
            contact(messenger, address).await
        }
        Request::Send { contact: who, text } => {
            let address = resolve(messenger, &who).await?;
            let id = messenger.send(address, &text).await?;
            let (state, _) = json::message_state(messenger.message(id).await?.state);
            Ok(json!({"message": id.to_string(), "state": state}))
        }
        Request::Cancel { message } => {
            messenger.cancel(message.parse()?).await?;
            Ok(json!({"message": message, "state": "cancelled"}))
        }
        Request::History { contact: who, limit, before } => history(messenger, &who, limit, before).await,
        Request::Files {} => {
            let transfers = messenger.transfers().await?;
            Ok(json!({"transfers": transfers.iter().map(json::transfer).collect::<Vec<_>>()}))
        }
        Request::FileOffer { contact: who, path } => {
            let address = resolve(messenger, &who).await?;
            let id = messenger.offer_file(address, absolute(path)?).await?;
            Ok(json!({"transfer": json::transfer(&messenger.transfer(id).await?)}))
        }
        Request::FileAccept { transfer, path } => {
            let id = transfer.parse()?;
            messenger.accept_file(id, absolute(path)?).await?;
            Ok(json!({"transfer": json::transfer(&messenger.transfer(id).await?)}))
        }
        Request::FileDecline { transfer } => {
            let id = transfer.parse()?;
            messenger.decline_file(id).await?;
            Ok(json!({"transfer": json::transfer(&messenger.transfer(id).await?)}))
        }
        Request::FileCancel { transfer } => {
            let id = transfer.parse()?;
            messenger.cancel_file(id).await?;
            Ok(json!({"transfer": json::transfer(&messenger.transfer(id).await?)}))
        }
        Request::Events { .. } => Err(Refusal::invalid("events can be asked for on the daemon's socket only")),
    }
}

async fn status(messenger: &Messenger) -> Result<Value, Refusal> {
    let network = match &*messenger.status().borrow() {
        ListenerStatus::Starting => "starting",
        ListenerStatus::Reachable => "reachable",
        ListenerStatus::Broken(_) => "broken",
        ListenerStatus::Stopped => "offline",
        _ => "other",
    };
    let contacts = messenger.contacts().await?;
    let count = |state| contacts.iter().filter(|contact| contact.state == state).count();
    Ok(json!({
        "address": messenger.address().to_string(),
        "name": messenger.name().await?,
        "network": network,
        "accepted": count(ContactState::Accepted),
        "pending": count(ContactState::Pending),
        "cursor": messenger.cursor().await?.0,
    }))
}

async fn history(messenger: &Messenger, who: &str, limit: Option<u16>, before: Option<u64>) -> Result<Value, Refusal> {
    let address = resolve(messenger, who).await?;
    let limit = limit.map_or(USUAL_HISTORY, usize::from);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Refusal::invalid(format!("the limit of a history is 1 to {MAX_PAGE}")));
    }
    let messages = messenger.messages(address, before, limit).await?;
    let mut bytes = 0;
    let mut shown: Vec<_> = messages
        .iter()
        .rev()
        .take_while(|message| {
            bytes += message.text.len();
            bytes <= MAX_HISTORY
        })
        .map(json::message)
        .collect();
    shown.reverse();
    Ok(json!({"messages": shown}))
}

async fn contact(messenger: &Messenger, address: OnionAddress) -> Result<Value, Refusal> {
    Ok(json!({"contact": json::contact(&messenger.contact(address).await?)}))
}

/// The address of a contact, or an address that is no contact yet.
async fn resolve(messenger: &Messenger, who: &str) -> Result<OnionAddress, Refusal> {
    if let Ok(address) = who.parse() {
        return Ok(address);
    }
    let contacts = messenger.contacts().await?;
    let mut called = contacts.iter().filter(|contact| !who.is_empty() && contact.petname == who);
    match (called.next(), called.next()) {
        (Some(contact), None) => Ok(contact.address),
        (Some(_), Some(_)) => Err(Refusal::invalid("several contacts have this petname: name the address")),
        (None, _) if who.to_ascii_lowercase().ends_with(".onion") => parse_address(who),
        (None, _) => Err(Refusal::invalid("this is no address, and no contact has this petname")),
    }
}

fn parse_address(text: &str) -> Result<OnionAddress, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(format!("the address is refused: {}", chain(&error))))
}

/// A relative path would depend on where the daemon was started.
fn absolute(path: String) -> Result<String, Refusal> {
    if std::path::Path::new(&path).is_absolute() { Ok(path) } else { Err(Refusal::invalid("the path is not absolute")) }
}

impl From<ProfileError> for Refusal {
    fn from(error: ProfileError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<ContactError> for Refusal {
    fn from(error: ContactError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<TransferError> for Refusal {
    fn from(error: TransferError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<EventsError> for Refusal {
    fn from(error: EventsError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Storage, error.to_string())
    }
}
