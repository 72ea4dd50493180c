//! Registration: when it is complete, and what a new user is told.

use std::sync::atomic::Ordering;

use super::{ClientId, Phase, Server};
use crate::entry::{Entry, MAX_KEY, MAX_MODE_CHANGES};
use crate::names::{MAX_CHANNEL, MAX_NICK, UserId};

/// Channels that one user may be in.
pub(crate) const MAX_CHANNELS: usize = 50;
/// Targets of one command.
pub(crate) const MAX_TARGETS: usize = 4;
/// Bytes of a topic.
pub(crate) const MAX_TOPIC: usize = 390;
/// Bytes of an away message.
pub(crate) const MAX_AWAY: usize = 200;
/// Bytes of the reason of a PART or KICK.
pub(crate) const MAX_KICK: usize = 300;

impl Server {
    /// Registers the client if it has sent all that this needs.
    pub(crate) fn try_register(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.phase != Phase::New || client.negotiating {
            return;
        }
        let (Some(nick), Some((username, realname))) = (client.wanted.clone(), client.named.clone()) else { return };
        let nonce = rand::random();
        if self.is_nick_taken(&nick) {
            self.reply(id, 433, format_args!("{nick} :Nickname is already in use"));
            if let Some(client) = self.clients.get_mut(&id) {
                client.wanted = None;
            }
            return;
        }
        let user = UserId::new(&self.own, nonce);
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.phase = Phase::Connecting;
        client.nonce = nonce;
        client.user = Some(user);
        self.new_clients.remove(&id);
        self.by_user.insert(user, id);
        self.change_nick(id, &nick.clone(), Entry::Connect { user: nonce, nick, username, realname });
    }

    /// The client's user exists now.
    pub(super) fn welcome(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.phase = Phase::Registered;
        client.shared.registered.store(true, Ordering::Relaxed);
        let mask = client.user.map(|user| self.world.mask(user)).unwrap_or_default();
        let (name, network) = (self.config.name.clone(), self.config.network.clone());
        self.reply(id, 1, format_args!(":Welcome to the {network} network, {mask}"));
        // Nothing here tells one node from another: neither versions nor dates.
        self.reply(id, 2, format_args!(":Your host is {name}, running hcp-irc"));
        self.reply(id, 3, ":This server lives at one onion address on many equal nodes");
        self.reply(id, 4, format_args!("{name} hcp-irc i iklmnostv klov"));
        self.reply(
            id,
            5,
            format_args!(
                "CASEMAPPING=ascii CHANMODES=,k,l,imnst CHANTYPES=# PREFIX=(ov)@+ NETWORK={} NICKLEN={MAX_NICK} \
                 CHANNELLEN={MAX_CHANNEL} TOPICLEN={MAX_TOPIC} KICKLEN={MAX_KICK} AWAYLEN={MAX_AWAY} \
                 KEYLEN={MAX_KEY} :are supported by this server",
                network.replace(' ', "\\x20")
            ),
        );
        self.reply(
            id,
            5,
            format_args!(
                "CHANLIMIT=#:{MAX_CHANNELS} MODES={MAX_MODE_CHANGES} UTF8ONLY \
                 TARGMAX=PRIVMSG:{MAX_TARGETS},NOTICE:{MAX_TARGETS},TAGMSG:{MAX_TARGETS},JOIN:,PART:,KICK:1,WHOIS:1 \
                 :are supported by this server"
            ),
        );
        self.send_counts(id);
        self.send_motd(id);
    }

    /// RPL_LUSERCLIENT and its kin, about the whole network: the number of one node would say which it is.
    pub(crate) fn send_counts(&mut self, id: ClientId) {
        let (mut invisible, mut visible) = (0, 0);
        for (_, user) in self.world.visible_users() {
            *(if user.is_invisible() { &mut invisible } else { &mut visible }) += 1;
        }
        let all = visible + invisible;
        let channels =
            self.world.channels().filter(|(_, channel)| self.world.visible_members(channel).next().is_some()).count();
        self.reply(id, 251, format_args!(":There are {visible} users and {invisible} invisible on 1 servers"));
        self.reply(id, 252, "0 :operator(s) online");
        self.reply(id, 253, "0 :unknown connection(s)");
        self.reply(id, 254, format_args!("{channels} :channels formed"));
        self.reply(id, 255, format_args!(":I have {all} clients and 0 servers"));
        self.reply(id, 265, format_args!("{all} {all} :Current local users {all}, max {all}"));
        self.reply(id, 266, format_args!("{all} {all} :Current global users {all}, max {all}"));
    }

    /// The message of the day.
    pub(crate) fn send_motd(&mut self, id: ClientId) {
        if self.config.motd.is_empty() {
            self.reply(id, 422, ":There is no message of the day");
            return;
        }
        let name = self.config.name.clone();
        self.reply(id, 375, format_args!(":- {name} Message of the day -"));
        for line in self.config.motd.clone() {
            self.reply(id, 372, format_args!(":- {line}"));
        }
        self.reply(id, 376, ":End of /MOTD command");
    }
}
