//! SRTP ciphers that are made when they are first used.
//!
//! str0m makes a pair of contexts for every connection. A subscriber has its own and never uses
//! str0m's, which would cost it seven kilobytes and two key expansions.

use std::fmt;

use str0m::crypto::{
    AeadAes128GcmCipher, AeadAes256GcmCipher, CryptoError, SrtpProvider, SupportedAeadAes128Gcm,
    SupportedAeadAes256Gcm, SupportedAes128CmSha1_80,
};

/// str0m's SRTP, with late AES-GCM. (Its AES-CM keeps nothing but the key anyhow.)
#[derive(Debug)]
pub(super) struct LateSrtp;

fn own() -> &'static dyn SrtpProvider {
    str0m::crypto::from_feature_flags().srtp_provider
}

impl SrtpProvider for LateSrtp {
    fn aes_128_cm_sha1_80(&self) -> &'static dyn SupportedAes128CmSha1_80 {
        own().aes_128_cm_sha1_80()
    }

    fn aead_aes_128_gcm(&self) -> &'static dyn SupportedAeadAes128Gcm {
        &LateSrtp
    }

    fn aead_aes_256_gcm(&self) -> &'static dyn SupportedAeadAes256Gcm {
        &LateSrtp
    }

    fn srtp_aes_128_ecb_round(&self, key: &[u8], input: &[u8], output: &mut [u8]) {
        own().srtp_aes_128_ecb_round(key, input, output);
    }

    fn srtp_aes_256_ecb_round(&self, key: &[u8], input: &[u8], output: &mut [u8]) {
        own().srtp_aes_256_ecb_round(key, input, output);
    }
}

impl SupportedAeadAes128Gcm for LateSrtp {
    fn create_cipher(&self, key: [u8; 16], encrypt: bool) -> Box<dyn AeadAes128GcmCipher> {
        Box::new(Late::<16, dyn AeadAes128GcmCipher> { key, encrypt, cipher: None })
    }
}

impl SupportedAeadAes256Gcm for LateSrtp {
    fn create_cipher(&self, key: [u8; 32], encrypt: bool) -> Box<dyn AeadAes256GcmCipher> {
        Box::new(Late::<32, dyn AeadAes256GcmCipher> { key, encrypt, cipher: None })
    }
}

struct Late<const KEY_BYTES: usize, C: ?Sized> {
    key: [u8; KEY_BYTES],
    encrypt: bool,
    cipher: Option<Box<C>>,
}

impl<const KEY_BYTES: usize, C: ?Sized> fmt::Debug for Late<KEY_BYTES, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Late")
    }
}

/// The two traits are the same but for the cipher's name.
macro_rules! late {
    ($bytes:literal, $cipher:ident, $factory:ident) => {
        impl Late<$bytes, dyn $cipher> {
            fn cipher(&mut self) -> &mut dyn $cipher {
                let make = || own().$factory().create_cipher(self.key, self.encrypt);
                &mut **self.cipher.get_or_insert_with(make)
            }
        }

        impl $cipher for Late<$bytes, dyn $cipher> {
            fn encrypt(
                &mut self,
                iv: &[u8; 12],
                aad: &[u8],
                input: &[u8],
                output: &mut [u8],
            ) -> Result<(), CryptoError> {
                self.cipher().encrypt(iv, aad, input, output)
            }

            fn decrypt(
                &mut self,
                iv: &[u8; 12],
                aads: &[&[u8]],
                input: &[u8],
                output: &mut [u8],
            ) -> Result<usize, CryptoError> {
                self.cipher().decrypt(iv, aads, input, output)
            }
        }
    };
}

late!(16, AeadAes128GcmCipher, aead_aes_128_gcm);
late!(32, AeadAes256GcmCipher, aead_aes_256_gcm);
