//! Bytes as what a liar stores into its segment, and looks at it by its reader and its producer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    shoal_runtime::hostile::play(bytes);
});
