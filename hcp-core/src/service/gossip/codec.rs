//! Between [`Message`]s and their bytes.

use bytes::Bytes;
use curve25519_dalek::MontgomeryPoint;
use prost::Message as _;

use super::record::verify_point;
use super::{
    Answer, Echo, Entrust, GossipError, Heartbeat, Message, Period, PointDescription, PointId, PointSecrets,
    Publication, Pulse, Record, RelayId, Roster, SignedRecord, Tags,
};
use crate::identity::OnionAddress;
use crate::service::tuning::{
    MAX_CLAIMS, MAX_HELD, MAX_HOLDERS, MAX_HOLDS, MAX_LEFT_OUT, MAX_MESSAGE, MAX_POINTS, MAX_PUBLICATIONS, MAX_SEEKING,
    MAX_SIGHTINGS, MAX_TAGS,
};
use crate::wire::service_proto::{self as proto, message::Body};

impl Message {
    /// Reads a message that concerns `service` and names members of `roster`.
    ///
    /// # Errors
    /// [`GossipError`]; after [`GossipError::Stranger`] the link may go on, after any other it is to be closed.
    pub(crate) fn decode(bytes: &[u8], service: OnionAddress, roster: &Roster) -> Result<Self, GossipError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(GossipError::TooLong);
        }
        let message = proto::Message::decode(bytes).map_err(|_| GossipError::Malformed)?;
        Ok(match message.body.ok_or(GossipError::Malformed)? {
            Body::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat_of(heartbeat, service, roster)?),
            Body::Record(signed) => Self::Record(SignedRecord::from_proto(signed, service, roster)?),
            Body::Entrust(entrust) => Self::Entrust(entrust_of(entrust, roster)?),
            Body::Tags(tags) => Self::Tags(tags_of(tags)?),
            Body::Held(held) => {
                limit(held.points.len(), MAX_HELD, "points held")?;
                let points = held.points.iter().map(|held| Ok((PointId(key(&held.point)?), held.tags)));
                Self::Held(points.collect::<Result<_, GossipError>>()?)
            }
            Body::Ask(ask) => Self::Ask { point: PointId(key(&ask.point)?), nonce: ask.nonce },
            Body::Promise(promise) => {
                let answer = if promise.millis == 0 { Answer::Taken } else { Answer::KeepsAway(promise.millis) };
                Self::Promise { point: PointId(key(&promise.point)?), nonce: promise.nonce, answer }
            }
            Body::Release(point) => Self::Release(PointId(key(&point)?)),
            Body::Forget(point) => Self::Forget(PointId(key(&point)?)),
            Body::Heard(nonce) => Self::Heard(key(&nonce)?),
            Body::Reached(member) => Self::Reached(roster.by_key(&member).ok_or(GossipError::Stranger)?),
        })
    }

    /// The bytes of a message; at most [`MAX_MESSAGE`].
    pub(crate) fn encode(&self) -> Bytes {
        let body = match self {
            Self::Heartbeat(heartbeat) => Body::Heartbeat(proto::Heartbeat {
                sent: heartbeat.sent,
                echo: heartbeat.echo.map(|echo| echo.sent),
                held: heartbeat.echo.map_or(0, |echo| echo.held),
                wall: heartbeat.wall,
                pulse: Some(pulse_proto(&heartbeat.pulse)),
                seeking: heartbeat.seeking.iter().map(address).collect(),
                sightings: heartbeat.sightings.iter().map(pulse_proto).collect(),
            }),
            Self::Record(record) => Body::Record(record.to_proto()),
            Self::Entrust(entrust) => Body::Entrust(proto::Entrust {
                relay: bytes_of(&entrust.relay.0),
                secrets: bytes_of(&*entrust.secrets.to_bytes()),
                holders: entrust.holders.iter().map(address).collect(),
                before: entrust.before,
                incarnation: entrust.incarnation,
            }),
            Self::Tags(tags) => Body::Tags(proto::Tags {
                point: bytes_of(&tags.point.0),
                first: tags.first,
                tags: tags.tags.iter().map(|tag| bytes_of(tag)).collect(),
            }),
            Self::Held(points) => Body::Held(proto::Held {
                points: points
                    .iter()
                    .map(|(point, tags)| proto::HeldPoint { point: bytes_of(&point.0), tags: *tags })
                    .collect(),
            }),
            Self::Ask { point, nonce } => Body::Ask(proto::Ask { point: bytes_of(&point.0), nonce: *nonce }),
            Self::Promise { point, nonce, answer } => Body::Promise(proto::Promise {
                point: bytes_of(&point.0),
                nonce: *nonce,
                millis: match answer {
                    // Nothing stands for the other answer.
                    Answer::KeepsAway(millis) => (*millis).max(1),
                    Answer::Taken => 0,
                },
            }),
            Self::Release(point) => Body::Release(bytes_of(&point.0)),
            Self::Forget(point) => Body::Forget(bytes_of(&point.0)),
            Self::Heard(nonce) => Body::Heard(bytes_of(nonce)),
            Self::Reached(member) => Body::Reached(address(member)),
        };
        Bytes::from(proto::Message { body: Some(body) }.encode_to_vec())
    }
}

fn heartbeat_of(heartbeat: proto::Heartbeat, service: OnionAddress, roster: &Roster) -> Result<Heartbeat, GossipError> {
    limit(heartbeat.seeking.len(), MAX_SEEKING, "members sought")?;
    limit(heartbeat.sightings.len(), MAX_SIGHTINGS, "sightings")?;
    let pulse = pulse_of(&heartbeat.pulse.ok_or(GossipError::Malformed)?, roster)?.ok_or(GossipError::Stranger)?;
    pulse.verify(service)?;
    let mut sightings = Vec::with_capacity(heartbeat.sightings.len());
    for pulse in &heartbeat.sightings {
        // Who is no member here is none of the sender's faults: its manifest may be newer.
        if let Some(pulse) = pulse_of(pulse, roster)? {
            pulse.verify(service)?;
            sightings.push(pulse);
        }
    }
    Ok(Heartbeat {
        sent: heartbeat.sent,
        echo: heartbeat.echo.map(|sent| Echo { sent, held: heartbeat.held }),
        wall: heartbeat.wall,
        pulse,
        seeking: heartbeat.seeking.iter().filter_map(|member| roster.by_key(member)).collect(),
        sightings,
    })
}

fn pulse_of(pulse: &proto::Pulse, roster: &Roster) -> Result<Option<Pulse>, GossipError> {
    let signature = key(&pulse.signature)?;
    let member = roster.by_key(&pulse.member);
    Ok(member.map(|member| Pulse { member, incarnation: pulse.incarnation, count: pulse.count, signature }))
}

fn pulse_proto(pulse: &Pulse) -> proto::Pulse {
    proto::Pulse {
        member: address(&pulse.member),
        incarnation: pulse.incarnation,
        count: pulse.count,
        signature: bytes_of(&pulse.signature),
    }
}

fn entrust_of(entrust: proto::Entrust, roster: &Roster) -> Result<Entrust, GossipError> {
    limit(entrust.holders.len(), MAX_HOLDERS, "holders")?;
    let secrets = PointSecrets::from_bytes(&key::<{ PointSecrets::LEN }>(&entrust.secrets)?);
    let holders = entrust.holders.iter().map(|holder| roster.by_key(holder).ok_or(GossipError::Stranger));
    let holders = holders.collect::<Result<_, _>>()?;
    let relay = RelayId(key(&entrust.relay)?);
    Ok(Entrust { incarnation: entrust.incarnation, relay, secrets, holders, before: entrust.before })
}

fn tags_of(tags: proto::Tags) -> Result<Tags, GossipError> {
    limit(tags.tags.len(), MAX_TAGS, "marks")?;
    let list = tags.tags.iter().map(|tag| key(tag)).collect::<Result<_, _>>()?;
    Ok(Tags { point: PointId(key(&tags.point)?), first: tags.first, tags: list })
}

/// The content of a record whose signature was checked.
pub(super) fn record_of(
    record: proto::Record,
    service: OnionAddress,
    member: OnionAddress,
    roster: &Roster,
) -> Result<Record, GossipError> {
    limit(record.points.len(), MAX_POINTS, "points")?;
    limit(record.holds.len(), MAX_HOLDS, "periods")?;
    limit(record.publications.len(), MAX_PUBLICATIONS, "publications")?;
    limit(record.taken.len(), MAX_CLAIMS, "points taken over")?;
    let points = record.points.iter().map(|point| point_of(point, service, member)).collect::<Result<Vec<_>, _>>()?;
    if points.iter().enumerate().any(|(index, point)| points[..index].iter().any(|other| other.id == point.id)) {
        return Err(GossipError::Point);
    }
    Ok(Record {
        incarnation: record.incarnation,
        version: record.version,
        points,
        holds: record.holds.iter().map(period_of).collect::<Result<_, _>>()?,
        publications: record
            .publications
            .iter()
            .map(|publication| publication_of(publication, roster))
            .collect::<Result<_, _>>()?,
        taken: record.taken.iter().map(|point| Ok(PointId(key(point)?))).collect::<Result<_, GossipError>>()?,
        stopping: record.stopping,
    })
}

pub(super) fn encode_record(record: &Record, proofs: &[[u8; 64]]) -> Vec<u8> {
    let point = |(point, proof): (&PointDescription, &[u8; 64])| proto::Point {
        relay: bytes_of(&point.relay.0),
        id: bytes_of(&point.id.0),
        ntor: bytes_of(&point.ntor),
        proof: bytes_of(proof),
    };
    proto::Record {
        incarnation: record.incarnation,
        version: record.version,
        points: record.points.iter().zip(proofs).map(point).collect(),
        holds: record.holds.iter().map(period_proto).collect(),
        publications: record
            .publications
            .iter()
            .map(|publication| proto::Publication {
                period: Some(period_proto(&publication.period)),
                set: bytes_of(&publication.set),
                rotation: publication.rotation,
                at: publication.at,
                left_out: publication.left_out.iter().map(address).collect(),
            })
            .collect(),
        taken: record.taken.iter().map(|point| bytes_of(&point.0)).collect(),
        stopping: record.stopping,
    }
    .encode_to_vec()
}

fn point_of(
    point: &proto::Point,
    service: OnionAddress,
    member: OnionAddress,
) -> Result<PointDescription, GossipError> {
    let description =
        PointDescription { relay: RelayId(key(&point.relay)?), id: PointId(key(&point.id)?), ntor: key(&point.ntor)? };
    // With a key of small order everybody shares the secret.
    if MontgomeryPoint(description.ntor).mul_clamped([1; 32]).to_bytes() == [0; 32] {
        return Err(GossipError::Point);
    }
    verify_point(service, member, &description, &key(&point.proof)?)?;
    Ok(description)
}

fn publication_of(publication: &proto::Publication, roster: &Roster) -> Result<Publication, GossipError> {
    limit(publication.left_out.len(), MAX_LEFT_OUT, "members left out")?;
    Ok(Publication {
        period: period_of(publication.period.as_ref().ok_or(GossipError::Malformed)?)?,
        set: key(&publication.set)?,
        rotation: publication.rotation,
        at: publication.at,
        left_out: publication.left_out.iter().filter_map(|member| roster.by_key(member)).collect(),
    })
}

fn period_of(period: &proto::Period) -> Result<Period, GossipError> {
    if period.length == 0 {
        return Err(GossipError::Limit("a period's length"));
    }
    Ok(Period { number: period.number, length: period.length, offset: period.offset })
}

fn period_proto(period: &Period) -> proto::Period {
    proto::Period { number: period.number, length: period.length, offset: period.offset }
}

fn limit(count: usize, most: usize, what: &'static str) -> Result<(), GossipError> {
    if count > most { Err(GossipError::Limit(what)) } else { Ok(()) }
}

fn key<const N: usize>(bytes: &[u8]) -> Result<[u8; N], GossipError> {
    bytes.try_into().map_err(|_| GossipError::Malformed)
}

fn bytes_of(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn address(member: &OnionAddress) -> Bytes {
    Bytes::copy_from_slice(member.public_key())
}
