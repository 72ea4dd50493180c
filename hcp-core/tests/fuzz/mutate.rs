//! Seeded mutation of one input, with pieces of others.

use rand::RngExt;
use rand::rngs::StdRng;

/// Numbers at which lengths and counters break.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x1_0000, u32::MAX as u64, u64::MAX];

/// Changes `input` in one to eight places, or replaces parts of it by parts of `others`; it stays within `limit`.
pub(crate) fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], limit: usize, random: &mut StdRng) {
    for _ in 0..random.random_range(1..=8) {
        let at = place(input.len(), random);
        match random.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 => input.insert(at, random.random()),
            3 => drop(input.drain(at..place(input.len() - at, random) + at)),
            4 => input.truncate(at),
            5 => overwrite(input, at, random),
            6 => {
                // A piece of its own, again.
                let end = at + place(input.len() - at, random);
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                let other = &others[random.random_range(0..others.len())];
                let from = place(other.len(), random);
                let to = from + place(other.len() - from, random);
                let end = at + place(input.len() - at, random);
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
        input.truncate(limit);
    }
}

/// A number of one, two, four or eight bytes, big-endian, at an edge or beside it.
fn overwrite(input: &mut [u8], at: usize, random: &mut StdRng) {
    let edge = EDGES[random.random_range(0..EDGES.len())].wrapping_add(random.random_range(0..3)).wrapping_sub(1);
    let bytes = edge.to_be_bytes();
    let width = 1 << random.random_range(0..4);
    for (target, byte) in input[at..].iter_mut().zip(&bytes[8 - width..]) {
        *target = *byte;
    }
}

fn place(length: usize, random: &mut StdRng) -> usize {
    random.random_range(0..=length)
}
