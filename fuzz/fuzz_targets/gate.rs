//! Arbitrary bytes through the gate, the decoders behind it and the encoders again.

#![no_main]

mod run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::run(data));
