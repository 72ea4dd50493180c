//! The codec by itself, for work on it; `make bench-wire` prints the ratios.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hcp_benches::codec::{Batch, LENGTHS};

fn frames(criterion: &mut Criterion) {
    for length in LENGTHS {
        let mut batch = Batch::new(length, 0);
        let mut group = criterion.benchmark_group(format!("{} frames of {length} bytes", batch.frames));
        group.throughput(Throughput::Bytes(batch.bytes() as u64));
        group.bench_function("encode", |b| b.iter(|| batch.encode()));
        group.bench_function("memcpy", |b| b.iter(|| batch.copy()));
        group.bench_function("encode and decode", |b| b.iter(|| batch.encode_and_decode()));
        group.bench_function("memcpy twice", |b| b.iter(|| batch.copy_twice()));
        group.bench_function("LengthDelimitedCodec", |b| b.iter(|| batch.length_delimited()));
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
