//! magent 0.6's hash: Bernstein's `h * 33 + c`.

/// The hash of `key`: 31 bits. Bytes of 0x80 and more count as negative, as C's `char` did on x86-64; a warm cache
/// filled through magent 0.6 stays warm only with that.
pub fn djb31(key: &[u8]) -> u32 {
    let mut hash: u32 = 5381;
    for &byte in key {
        hash = hash
            .wrapping_mul(33)
            .wrapping_add(i32::from(byte as i8) as u32);
    }
    hash & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::djb31;

    #[test]
    fn published_keys() {
        assert_eq!(djb31(b"key1"), 2_090_432_895);
        assert_eq!(djb31(b"key2"), 2_090_432_896);
        assert_eq!(djb31(b""), 5381);
    }
}
