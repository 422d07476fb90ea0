//! The small frames that say why: refusals, failures and cancellations. They are shown to people and logged, so what a
//! peer writes in them is short and has no control characters, or the frame is refused.

use minicbor::{Decode, Encode};

/// Most reasons in one refusal.
pub const REASONS_MAX: usize = 16;

/// Most bytes of a code.
const CODE_BYTES_MAX: usize = 64;
/// Most bytes of a detail; longer ones are cut by the sender.
const DETAIL_BYTES_MAX: usize = 1024;

/// Why the executor does not run a call. Nothing was handed to its upstream: the call may be tried elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// The first reason's stable name.
    #[n(0)]
    pub code: String,
    /// The same for people.
    #[n(1)]
    pub detail: String,
    /// Every rule that failed, where constraints did.
    #[n(2)]
    pub reasons: Vec<Reason>,
}

/// One rule that failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reason {
    /// The rule's stable name.
    #[n(0)]
    pub code: String,
    /// The facts of the case.
    #[n(1)]
    pub detail: String,
}

/// How a call failed that had been accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecutionFailure {
    /// A stable name: `upstream_died`, `timeout`, `cancelled`, `overloaded`, `too_large`, `refused` (the
    /// request itself is wrong), `internal`.
    #[n(0)]
    pub code: String,
    /// The same for people.
    #[n(1)]
    pub detail: String,
    /// Whether the upstream may have begun to run it.
    #[n(2)]
    pub handed_over: bool,
}

/// The caller's wish that a call stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Cancel {
    /// For the upstream's log.
    #[n(0)]
    pub reason: Option<String>,
}

/// The payload of a small frame.
pub(super) trait Note: for<'b> Decode<'b, ()> + Encode<()> {
    /// Whether its texts are short and have no control characters.
    fn is_clean(&self) -> bool;
}

impl Note for Refusal {
    fn is_clean(&self) -> bool {
        is_code(&self.code)
            && is_detail(&self.detail)
            && self.reasons.len() <= REASONS_MAX
            && self.reasons.iter().all(|reason| is_code(&reason.code) && is_detail(&reason.detail))
    }
}

impl Note for ExecutionFailure {
    fn is_clean(&self) -> bool {
        is_code(&self.code) && is_detail(&self.detail)
    }
}

impl Note for Cancel {
    fn is_clean(&self) -> bool {
        self.reason.as_deref().is_none_or(is_detail)
    }
}

fn is_code(text: &str) -> bool {
    is_clean(text, CODE_BYTES_MAX)
}

fn is_detail(text: &str) -> bool {
    is_clean(text, DETAIL_BYTES_MAX)
}

impl Refusal {
    /// A refusal for one reason.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self {
            code: tidy(code, CODE_BYTES_MAX),
            detail: tidy(&detail.into(), DETAIL_BYTES_MAX),
            reasons: Vec::new(),
        }
    }

    /// Adds rules, as many as a refusal may have.
    #[must_use]
    pub fn because(mut self, reasons: impl Iterator<Item = (String, String)>) -> Self {
        let reasons = reasons.map(|(code, detail)| Reason {
            code: tidy(&code, CODE_BYTES_MAX),
            detail: tidy(&detail, DETAIL_BYTES_MAX / 2),
        });
        self.reasons = reasons.take(REASONS_MAX).collect();
        self
    }
}

impl ExecutionFailure {
    /// A failure; what is too long for a frame is cut.
    pub fn new(code: &str, detail: &str, handed_over: bool) -> Self {
        Self { code: tidy(code, CODE_BYTES_MAX), detail: tidy(detail, DETAIL_BYTES_MAX), handed_over }
    }
}

impl Cancel {
    /// A wish to stop, with what is too long for a frame cut.
    pub fn new(reason: Option<&str>) -> Self {
        Self { reason: reason.map(|reason| tidy(reason, DETAIL_BYTES_MAX)) }
    }
}

/// `text` without control characters and cut to `bytes_max`, at a character's end.
fn tidy(text: &str, bytes_max: usize) -> String {
    let mut tidy: String = text.chars().take(bytes_max).filter(|c| !c.is_control()).collect();
    tidy.truncate(tidy.floor_char_boundary(bytes_max));
    tidy
}

fn is_clean(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(char::is_control)
}
