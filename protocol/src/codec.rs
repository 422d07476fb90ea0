//! Strict CBOR: what every record, frame and signed object goes through.
//!
//! Values are CBOR arrays in fixed order (RFC 8949). A decoder that is lenient gives an attacker many encodings of one
//! value; [`decode`] therefore demands the one encoding that [`encode`] makes: shortest integers, definite lengths, no
//! trailing bytes, no extra elements. Signatures and digests are still taken over the bytes as received.

use minicbor::{Decode, Encode};

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than the type may have.
    #[error("{actual} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes received.
        actual: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not CBOR, or not of the expected shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A second encoding of a value: non-minimal integers, indefinite lengths, or extra elements.
    #[error("not in canonical form")]
    NotCanonical,
    /// Bytes after the value.
    #[error("{0} bytes after the end of the value")]
    Trailing(usize),
}

/// The canonical bytes of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a Vec cannot fail")
}

/// Reads one value that fills `bytes`, of at most `max` bytes, in canonical form.
///
/// # Errors
/// [`CodecError`], before any allocation larger than `bytes` itself.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { actual: bytes.len(), max });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder.decode().map_err(|error| CodecError::Malformed(error.to_string()))?;
    let rest = bytes.len() - decoder.position();
    if rest > 0 {
        return Err(CodecError::Trailing(rest));
    }
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// Defines a sorted set that is encoded as an array in ascending order.
macro_rules! encoded_set {
    ($(#[$doc:meta])* $name:ident, $item:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub std::collections::BTreeSet<$item>);

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                ctx: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.array(self.0.len() as u64)?;
                self.0.iter().try_for_each(|item| item.encode(e, ctx))
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
                d.array_iter_with(ctx)?.collect::<Result<_, _>>().map(Self)
            }
        }

        impl FromIterator<$item> for $name {
            fn from_iter<I: IntoIterator<Item = $item>>(items: I) -> Self {
                Self(items.into_iter().collect())
            }
        }
    };
}
pub(crate) use encoded_set;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Pair {
        #[n(0)]
        a: u64,
        #[n(1)]
        b: String,
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        let good = encode(&Pair { a: 5, b: "x".into() });
        assert_eq!(good, [0x82, 0x05, 0x61, b'x']);
        assert_eq!(decode::<Pair>(&good, 64), Ok(Pair { a: 5, b: "x".into() }));
        assert_eq!(decode::<Pair>(&[0x82, 0x18, 0x05, 0x61, b'x'], 64), Err(CodecError::NotCanonical));
        assert_eq!(decode::<Pair>(&[0x9f, 0x05, 0x61, b'x', 0xff], 64), Err(CodecError::NotCanonical));
        assert_eq!(decode::<Pair>(&[0x83, 0x05, 0x61, b'x', 0x01], 64), Err(CodecError::NotCanonical));
        assert_eq!(decode::<Pair>(&[0x82, 0x05, 0x61, b'x', 0x00], 64), Err(CodecError::Trailing(1)));
        assert_eq!(decode::<Pair>(&good, 3), Err(CodecError::TooLong { actual: 4, max: 3 }));
        assert!(matches!(decode::<Pair>(&[0x82, 0x05], 64), Err(CodecError::Malformed(_))));
    }
}
