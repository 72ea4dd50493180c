//! Frames against bare copies and tokio-util's `LengthDelimitedCodec`.
//!
//! All work on batches of about 64 KiB, which is what a session sends at once: each frame is written behind the others into
//! one buffer, and read from there with one more copy. tokio-util's codec reads into a buffer of its own and shares that out.
//! This library's shows each payload where it lies, and the session copies it to where it stays: a message of one frame into
//! memory of its own, which is measured here; of several, behind one another, which is measured beside.
//!
//! Some processors copy many times slower between buffers whose addresses lie badly to each other. Every turn therefore has
//! buffers of its own, elsewhere on their pages; in one turn all ways have the same.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use hcp_core::testing::bench::{FrameReader, encode_data};
use tokio_util::codec::{Decoder as _, Encoder as _, LengthDelimitedCodec};

use crate::measure::{Ratio, Turns, thread_time};
use crate::peers::noise;
use crate::report::{Goal, Report, rate, time};

/// What one batch has, about.
const BATCH: usize = 64 * 1024;
/// What is encoded and decoded before the clock is read.
const WORK: usize = 8 << 20;
const TURNS: usize = 61;
/// A control message's size, a long text's, and the most that a session puts into a frame.
pub const LENGTHS: [usize; 3] = [64, 1024, 16_366];

/// The buffers of one way.
pub struct Batch {
    payload: Bytes,
    pub frames: usize,
    out: Vec<u8>,
    input: Vec<u8>,
    reader: FrameReader,
    codec: LengthDelimitedCodec,
    codec_out: BytesMut,
    codec_input: BytesMut,
}

impl Batch {
    /// A batch of frames with payloads of `length` bytes that begins `offset` bytes into a page or elsewhere.
    pub fn new(length: usize, offset: usize) -> Self {
        Self {
            payload: noise(offset + length).slice(offset..),
            frames: (BATCH / length).max(1),
            out: Vec::with_capacity(2 * BATCH),
            input: Vec::with_capacity(2 * BATCH),
            reader: FrameReader::new(),
            codec: LengthDelimitedCodec::new(),
            codec_out: BytesMut::with_capacity(2 * BATCH),
            codec_input: BytesMut::with_capacity(2 * BATCH),
        }
    }

    pub fn bytes(&self) -> usize {
        self.frames * self.payload.len()
    }

    /// Until all memory is there.
    fn warm_up(&mut self, work: fn(&mut Self)) {
        for _ in 0..4 {
            work(self);
        }
    }

    /// Writes all frames.
    pub fn encode(&mut self) {
        self.out.clear();
        for _ in 0..self.frames {
            encode_data(1, black_box(&self.payload), &mut self.out);
        }
        black_box(&self.out);
    }

    /// Copies all payloads.
    pub fn copy(&mut self) {
        self.out.clear();
        for _ in 0..self.frames {
            self.out.extend_from_slice(black_box(&self.payload));
        }
        black_box(&self.out);
    }

    /// Writes all frames and takes them out again.
    pub fn encode_and_decode(&mut self) {
        self.encode();
        let (mut input, mut frames) = (&self.out[..], 0);
        while let Ok(Some(payload)) = self.reader.next_payload(&mut input) {
            black_box(Bytes::copy_from_slice(&payload));
            frames += 1;
        }
        assert_eq!(frames, self.frames, "every frame comes back");
    }

    /// As [`Self::encode_and_decode`], with all payloads behind one another in one buffer.
    pub fn encode_and_join(&mut self) {
        self.encode();
        self.input.clear();
        let (mut input, mut frames) = (&self.out[..], 0);
        while let Ok(Some(payload)) = self.reader.next_payload(&mut input) {
            self.input.extend_from_slice(&payload);
            frames += 1;
        }
        black_box(&self.input);
        assert_eq!(frames, self.frames, "every frame comes back");
    }

    /// Copies all payloads, and once more.
    pub fn copy_twice(&mut self) {
        self.copy();
        self.input.clear();
        self.input.extend_from_slice(&self.out);
        black_box(&self.input);
    }

    /// As [`Self::encode_and_decode`], with tokio-util's codec.
    pub fn length_delimited(&mut self) {
        self.codec_out.clear();
        for _ in 0..self.frames {
            let encoded = self.codec.encode(black_box(self.payload.clone()), &mut self.codec_out);
            assert!(encoded.is_ok(), "the payload is below the codec's limit");
        }
        self.codec_input.extend_from_slice(&self.codec_out);
        let mut frames = 0;
        while let Ok(Some(payload)) = self.codec.decode(&mut self.codec_input) {
            black_box(payload.freeze());
            frames += 1;
        }
        assert_eq!(frames, self.frames, "every frame comes back");
    }
}

/// Measures all lengths.
pub fn run(report: &mut Report) {
    const GROUP: &str = "frames";
    for length in LENGTHS {
        let shape = Batch::new(length, 0);
        let repeats = WORK / shape.bytes();
        let bytes = repeats * shape.bytes();
        let frames = (repeats * shape.frames) as f64;
        let way = |work: fn(&mut Batch)| {
            move |turn: usize| {
                // Odd, so that all alignments come up; the memory in front moves the buffers behind it.
                let offset = turn * 137 % 4096;
                let _in_front = vec![0_u8; offset * 3];
                let mut batch = Batch::new(length, offset);
                batch.warm_up(work);
                let start = thread_time();
                for _ in 0..repeats {
                    work(&mut batch);
                }
                thread_time() - start
            }
        };
        let turns = Turns::take_now(
            TURNS,
            &mut [
                &mut way(Batch::encode_and_decode),
                &mut way(Batch::copy_twice),
                &mut way(Batch::length_delimited),
                &mut way(Batch::encode),
                &mut way(Batch::copy),
                &mut way(Batch::encode_and_join),
            ],
        );
        let beyond = turns.difference(0, 1).times(1e9 / frames);
        let note = format!("{} a frame in all", time(turns.median(0) / frames));
        let what = |text: &str| format!("{length} bytes: {text}");
        report.value(GROUP, what("encode + decode, beyond the copies"), beyond, "ns", Some(Goal::AtMost(100.0)), note);
        let note = format!("{} and {}", rate(bytes, turns.median(0)), rate(bytes, turns.median(2)));
        let speed = turns.speed(0, 2);
        report.ratio(GROUP, what("encode + decode vs LengthDelimitedCodec"), speed, Some(Goal::AtLeast(1.0)), note);
        let note = format!("{} and {}", rate(bytes, turns.median(5)), rate(bytes, turns.median(2)));
        report.ratio(GROUP, what("into one message, vs LengthDelimitedCodec"), turns.speed(5, 2), None, note);
        let note = format!("{} and {}", rate(bytes, turns.median(3)), rate(bytes, turns.median(4)));
        let speed: Ratio = turns.speed(3, 4);
        // Where a frame is so short that its header counts, there is no goal.
        let goal = (length == LENGTHS[2]).then_some(Goal::AtLeast(1.0 / 1.2));
        report.ratio(GROUP, what("encode into the send buffer vs memcpy"), speed, goal, note);
    }
}
