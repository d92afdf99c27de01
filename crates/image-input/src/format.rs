//! Which format bytes are in, told by how they begin and never by a name or a header.

use std::fmt;

use crate::ImageError;

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// ITU-T T.81, baseline and progressive.
    Jpeg,
    /// Portable Network Graphics.
    Png,
    /// WebP, lossy and lossless.
    WebP,
    /// Graphics Interchange Format.
    Gif,
    /// Windows bitmap.
    Bmp,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
        })
    }
}

impl Format {
    /// Tells the format from the first bytes.
    ///
    /// # Errors
    /// [`ImageError::Empty`]; [`ImageError::OtherFormat`] for a known image format that is not
    /// read; [`ImageError::NotAnImage`] for all else.
    pub fn sniff(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [] => Err(ImageError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            // The header's length, 12 to 124 bytes, keeps out text that begins with "BM".
            [b'B', b'M', _, _, _, _, _, _, _, _, _, _, _, _, 12..=124, 0, 0, 0, ..] => {
                Ok(Self::Bmp)
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => {
                Err(ImageError::OtherFormat("AVIF"))
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', ..]
            | [_, _, _, _, b'f', b't', b'y', b'p', b'm', b'i', b'f', b'1', ..] => {
                Err(ImageError::OtherFormat("HEIF"))
            }
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => {
                Err(ImageError::OtherFormat("TIFF"))
            }
            [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => {
                Err(ImageError::OtherFormat("JPEG XL"))
            }
            [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => Err(ImageError::OtherFormat("JPEG 2000")),
            [b'8', b'B', b'P', b'S', ..] => Err(ImageError::OtherFormat("Photoshop")),
            _ => Err(ImageError::NotAnImage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_format() {
        let bmp = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0";
        for (bytes, expected) in [
            (&b""[..], Err(ImageError::Empty)),
            (b"\xff\xd8\xff\xe0", Ok(Format::Jpeg)),
            (b"\x89PNG\r\n\x1a\n", Ok(Format::Png)),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Ok(Format::WebP)),
            (b"GIF87a", Ok(Format::Gif)),
            (b"GIF89a\0", Ok(Format::Gif)),
            (bmp, Ok(Format::Bmp)),
            (b"BM, a car maker, builds cars", Err(ImageError::NotAnImage)),
            (b"RIFF\x10\0\0\0WAVEfmt ", Err(ImageError::NotAnImage)),
            (b"<!DOCTYPE html><html>", Err(ImageError::NotAnImage)),
            (b"\xff\xd8", Err(ImageError::NotAnImage)),
            (b"\0\0\0\x1cftypavif\0\0\0\0", Err(ImageError::OtherFormat("AVIF"))),
            (b"II*\0\x08\0\0\0", Err(ImageError::OtherFormat("TIFF"))),
        ] {
            assert_eq!(Format::sniff(bytes), expected, "bytes: {bytes:?}");
        }
    }
}
