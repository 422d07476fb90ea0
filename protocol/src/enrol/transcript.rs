//! What both sides of an enrolment have seen, and what follows from it: a proof of the token, and words to compare.

use bip39::Language;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::{MeshName, NodeId, OrgName, RootHash};
use crate::invite::{InviteKind, Token};

/// 32 random bytes of one side, drawn by the shell for this one exchange.
pub type Nonce = ByteArray<32>;

/// The org and the first root by which a joiner introduces itself when two orgs federate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Introduction {
    /// The joiner's org.
    #[n(0)]
    pub org: OrgName,
    /// The first root of that org.
    #[n(1)]
    pub root: RootHash,
}

/// All that both sides must agree on. Whoever stands between them has another key at least, so its two transcripts
/// differ, and with them the words.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct Transcript {
    /// What the invite is for.
    #[n(0)]
    pub kind: InviteKind,
    /// The mesh.
    #[n(1)]
    pub mesh: MeshName,
    /// The inviter's key, as the channel proved it.
    #[n(2)]
    pub inviter: NodeId,
    /// The joiner's key, as the channel proved it.
    #[n(3)]
    pub joiner: NodeId,
    /// The inviter's org.
    #[n(4)]
    pub org: OrgName,
    /// That org's first root.
    #[n(5)]
    pub root: RootHash,
    /// Who the joiner says it is, when two orgs federate.
    #[n(6)]
    pub introduction: Option<Introduction>,
    /// The inviter's nonce.
    #[n(7)]
    pub inviter_nonce: Nonce,
    /// The joiner's nonce.
    #[n(8)]
    pub joiner_nonce: Nonce,
}

/// Words to read to each other: 44 bits.
pub type Words = [&'static str; 4];

impl Transcript {
    /// The proof that the joiner has the token, good for this exchange between these two keys only.
    pub fn proof(&self, token: &Token) -> ByteArray<32> {
        ByteArray::from(*self.keyed("comity 2026 enrolment proof", token).as_bytes())
    }

    /// Whether `proof` is the right one. Takes the same time wherever the first difference is.
    pub fn check_proof(&self, token: &Token, proof: &ByteArray<32>) -> bool {
        // blake3::Hash compares in constant time.
        self.keyed("comity 2026 enrolment proof", token) == blake3::Hash::from_bytes(**proof)
    }

    /// The words that both sides show, from the English list of BIP-39.
    ///
    /// 44 bits are enough because nobody can search for a match: the joiner commits to its nonce before it sees the
    /// inviter's, and shows it only afterwards, so a man in the middle has one guess an exchange.
    pub fn words(&self, token: &Token) -> Words {
        let digest = self.keyed("comity 2026 enrolment words", token);
        let list = Language::English.word_list();
        let (head, _) = digest.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
        let bits = u64::from_be_bytes(*head);
        core::array::from_fn(|at| list[(bits >> (64 - 11 * (at + 1))) as usize % list.len()])
    }

    fn keyed(&self, purpose: &'static str, token: &Token) -> blake3::Hash {
        blake3::keyed_hash(&token.key(purpose), &codec::encode(self))
    }
}

/// What the joiner sends before it has seen the inviter's nonce, so that it cannot choose its own to suit.
pub fn commitment(nonce: &Nonce) -> ByteArray<32> {
    ByteArray::from(blake3::derive_key("comity 2026 enrolment commitment", &**nonce))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn transcript() -> Transcript {
        Transcript {
            kind: InviteKind::Member,
            mesh: "test".parse().unwrap(),
            inviter: NodeId::from_bytes([1; 32]),
            joiner: NodeId::from_bytes([2; 32]),
            org: "acme.example".parse().unwrap(),
            root: RootHash::of(b"root"),
            introduction: None,
            inviter_nonce: ByteArray::from([3; 32]),
            joiner_nonce: ByteArray::from([4; 32]),
        }
    }

    #[test]
    fn everything_in_it_changes_proof_and_words() {
        let token = Token::from_bytes([9; 16]);
        let intro = Introduction { org: "b.example".parse().unwrap(), root: RootHash::of(b"b") };
        let changes: [fn(&mut Transcript); 8] = [
            |_| {},
            |t| t.kind = InviteKind::Federate,
            |t| t.mesh = "other".parse().unwrap(),
            |t| t.inviter = NodeId::from_bytes([8; 32]),
            |t| t.joiner = NodeId::from_bytes([8; 32]),
            |t| t.org = "other.example".parse().unwrap(),
            |t| t.root = RootHash::of(b"other"),
            |t| t.inviter_nonce = ByteArray::from([8; 32]),
        ];
        let mut all = changes
            .map(|change| {
                let mut transcript = transcript();
                change(&mut transcript);
                transcript
            })
            .to_vec();
        all.push(Transcript { introduction: Some(intro), ..transcript() });
        all.push(Transcript { joiner_nonce: ByteArray::from([8; 32]), ..transcript() });
        let words: BTreeSet<_> = all.iter().map(|t| t.words(&token)).collect();
        let proofs: BTreeSet<_> = all.iter().map(|t| *t.proof(&token)).collect();
        assert_eq!((words.len(), proofs.len()), (10, 10));
        assert_ne!(transcript().words(&token), transcript().words(&Token::from_bytes([1; 16])));
    }

    #[test]
    fn a_proof_is_good_for_its_transcript_and_token_only() {
        let (token, other) = (Token::from_bytes([9; 16]), Token::from_bytes([8; 16]));
        let proof = transcript().proof(&token);
        assert!(transcript().check_proof(&token, &proof));
        assert!(!transcript().check_proof(&other, &proof));
        let elsewhere = Transcript { joiner: NodeId::from_bytes([5; 32]), ..transcript() };
        assert!(!elsewhere.check_proof(&token, &proof));
    }

    /// Fixed for ever within `/comity/enrol/1`: two versions of Comity must show the same words.
    #[test]
    fn the_words_are_pinned() {
        assert_eq!(transcript().words(&Token::from_bytes([9; 16])), ["multiply", "brick", "bread", "attend"]);
    }
}
