//! Modules as bytes: sections taken out and bytes flipped, to see them refused.

/// The module without its custom sections `jwt` and `wasmcloud_jwt`: nobody vouches for it.
///
/// # Errors
/// A sentence when `module` is not WebAssembly.
pub fn without_claims(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut rest = module.get(8..).ok_or("shorter than a WebAssembly header")?;
    let mut kept = module[..8].to_vec();
    while let Some((&id, after_id)) = rest.split_first() {
        let (len, after_len) = leb(after_id)?;
        let body = after_len.get(..len).ok_or("a section is cut short")?;
        let whole = rest.len() - after_len.len() + len;
        if id != CUSTOM || !matches!(name(body)?, b"jwt" | b"wasmcloud_jwt") {
            kept.extend_from_slice(&rest[..whole]);
        }
        rest = &rest[whole..];
    }
    Ok(kept)
}

/// The module with one bit of its largest section turned round.
///
/// # Errors
/// A sentence when `module` is not WebAssembly.
pub fn tampered(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut at = 8;
    let mut largest = 0..0;
    while at < module.len() {
        let (len, after) = leb(&module[at + 1..])?;
        let start = module.len() - after.len();
        if len > largest.len() {
            largest = start..start + len;
        }
        at = start + len;
    }
    let middle = largest.start + largest.len() / 2;
    let mut changed = module.to_vec();
    *changed.get_mut(middle).ok_or("no section")? ^= 1;
    Ok(changed)
}

fn name(body: &[u8]) -> Result<&[u8], String> {
    let (len, rest) = leb(body)?;
    rest.get(..len).ok_or_else(|| "a section's name is cut short".to_owned())
}

/// An unsigned number in LEB128, and what follows it.
fn leb(bytes: &[u8]) -> Result<(usize, &[u8]), String> {
    let mut value = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err("a length is cut short".to_owned())
}

const CUSTOM: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Header, custom `jwt` = "x", data section of 3 bytes, custom `name` = "y".
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\x00\x05\x03jwtx\x0b\x03abc\x00\x06\x04namey";

    #[test]
    fn only_the_claims_are_taken_out() {
        assert_eq!(
            without_claims(MODULE).as_deref(),
            Ok(&b"\0asm\x01\0\0\0\x0b\x03abc\x00\x06\x04namey"[..])
        );
    }

    #[test]
    fn a_module_that_is_cut_short_is_told_so() {
        for end in [4, 9, 12, 17] {
            assert!(without_claims(&MODULE[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn tampering_changes_one_byte_and_no_length() {
        let changed = tampered(MODULE).expect("a module");
        let differing = MODULE.iter().zip(&changed).filter(|(old, new)| old != new).count();
        assert_eq!((changed.len(), differing), (MODULE.len(), 1));
    }
}
