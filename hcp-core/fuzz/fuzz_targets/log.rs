#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hcp_core::testing::fuzz::log(data));
