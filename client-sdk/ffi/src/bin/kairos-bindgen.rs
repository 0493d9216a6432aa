//! Writes the module of a language for the library:
//! `kairos-bindgen generate --library libkairos_client_ffi.so --language kotlin --out-dir generated`.

fn main() {
    uniffi::uniffi_bindgen_main();
}
