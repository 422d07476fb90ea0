//! The values of a scenario: durations, shares, ranges, places. Each is parsed once into a type that cannot be wrong.

use std::time::Duration;

use comity_protocol::constraints::DataClass;
use comity_protocol::geo::{Country, CountrySet, resolve_place};
use comity_protocol::ids::OrgName;
use comity_protocol::rng::Rng;
use toml::de::DeValue;

use super::section::{Setting, describe};

/// Longest duration that a scenario may name, and longest run: six days, because memberships end after seven and the
/// simulation renews none.
pub const DURATION_MAX: Duration = Duration::from_secs(6 * 24 * 60 * 60);

/// From one value to another, both included; each run draws one by its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<T> {
    /// The least.
    pub from: T,
    /// The most.
    pub to: T,
}

impl<T: Copy> Span<T> {
    /// Always `value`.
    pub const fn just(value: T) -> Self {
        Self { from: value, to: value }
    }
}

impl Span<Duration> {
    /// One duration of the span, to the microsecond.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        let width = self.to.saturating_sub(self.from).as_micros();
        let extra = rng.below(usize::try_from(width).unwrap_or(usize::MAX - 1).saturating_add(1));
        self.from + Duration::from_micros(extra as u64)
    }
}

impl Span<usize> {
    /// One number of the span.
    pub fn draw(&self, rng: &mut Rng) -> usize {
        self.from + rng.below(self.to - self.from + 1)
    }
}

/// A share in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// True as often as the share says.
    pub fn happens(self, rng: &mut Rng) -> bool {
        self.0 > 0 && rng.below(1_000_000) < self.0 as usize
    }
}

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(format!("is {}, not a string", describe(other))),
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a string of 1 to 64 characters";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value)?;
        if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
            return Err("is empty, too long or has control characters".into());
        }
        Ok(text.to_owned())
    }
}

/// A sentence or two for people.
pub(super) struct Prose(pub(super) String);

impl Setting for Prose {
    const EXPECTED: &'static str = "a text of at most 2000 characters";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value)?;
        if text.len() > 2000 { Err("is too long".into()) } else { Ok(Self(text.trim().to_owned())) }
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(format!("is {}, not a boolean", describe(other))),
        }
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"10s\", \"5m\" or \"2h\", at most 6 days";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        duration(text(value)?)
    }
}

/// A duration of any length.
pub(super) struct Length(pub(super) Duration);

impl Setting for Length {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"5s\" or \"1m30s\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value)?;
        length(text).map(Self).ok_or_else(|| format!("`{text}` is not a duration"))
    }
}

/// The units of durations in microseconds, the largest first.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

/// Numbers with units, each unit smaller than the one before it.
fn length(text: &str) -> Option<Duration> {
    let (mut rest, mut units, mut micros) = (text, &UNITS[..], 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len())];
        let at = units.iter().position(|(name, _)| *name == unit)?;
        micros = micros.checked_add(number.checked_mul(units[at].1)?)?;
        (rest, units) = (&rest[digits + unit.len()..], &units[at + 1..]);
    }
    (!text.is_empty()).then(|| Duration::from_micros(micros))
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = length(text).ok_or_else(|| format!("`{text}` is not a duration"))?;
    if duration > DURATION_MAX { Err(format!("`{text}` is too long")) } else { Ok(duration) }
}

impl Setting for Span<Duration> {
    const EXPECTED: &'static str = "a duration such as \"20ms\", or a range such as \"10ms..100ms\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value)?;
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        ordered(duration(from.trim())?, duration(to.trim())?, text)
    }
}

fn ordered<T: PartialOrd>(from: T, to: T, text: &str) -> Result<Span<T>, String> {
    if from > to { Err(format!("`{text}` ends before it begins")) } else { Ok(Span { from, to }) }
}

/// Most nodes that one site may have.
pub(super) const NODES_PER_SITE_MAX: usize = 10_000;

impl Setting for Span<usize> {
    const EXPECTED: &'static str = "a number from 1 to 10000, or a range such as \"2..14\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let span = match value {
            DeValue::Integer(number) => {
                let number = usize::from_str_radix(number.as_str(), number.radix());
                Span::just(number.map_err(|_| "is out of range".to_owned())?)
            }
            other => {
                let text = text(other).map_err(|_| format!("is {}", describe(other)))?;
                let (from, to) = text.split_once("..").ok_or_else(|| format!("`{text}` is no range"))?;
                let number = |part: &str| {
                    part.trim().parse::<usize>().map_err(|_| format!("`{part}` is not a number"))
                };
                ordered(number(from)?, number(to)?, text)?
            }
        };
        if span.from == 0 || span.to > NODES_PER_SITE_MAX { Err("is out of range".into()) } else { Ok(span) }
    }
}

impl Setting for Share {
    const EXPECTED: &'static str = "a share such as \"5%\" or \"0.1%\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value)?;
        let wrong = || format!("`{text}` is not a share");
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || fraction.len() > 4 || !digits(whole) || !digits(fraction) {
            return Err(wrong());
        }
        let millionths: u32 = format!("{whole}{fraction:0<4}").parse().map_err(|_| wrong())?;
        if millionths > Self::ALL.0 {
            Err(format!("`{text}` is more than all"))
        } else {
            Ok(Self(millionths))
        }
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number of 0 or more";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(number) => {
                Self::from_str_radix(number.as_str(), number.radix()).map_err(|_| "is out of range".into())
            }
            other => Err(format!("is {}, not an integer", describe(other))),
        }
    }
}

impl Setting for OrgName {
    const EXPECTED: &'static str = "an org's name such as \"acme.example\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value)?.parse().map_err(|error: comity_protocol::ids::IdError| error.to_string())
    }
}

impl Setting for Country {
    const EXPECTED: &'static str = "a country such as \"DE\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value)?.parse().map_err(|error: comity_protocol::geo::GeoError| error.to_string())
    }
}

/// A country or a group of them.
impl Setting for CountrySet {
    const EXPECTED: &'static str = "countries such as \"DE\", or groups such as \"EU\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        resolve_place(text(value)?).map_err(|error| error.to_string())
    }
}

impl Setting for DataClass {
    const EXPECTED: &'static str = "a class from 0 (public) to 3 (restricted)";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let level = u32::read(value)?;
        Self::from_level(u64::from(level)).ok_or_else(|| format!("{level} is no class"))
    }
}

/// One of several words.
pub(super) fn word<'w, T: Copy>(
    section: &mut super::section::Section<'_>,
    key: &'static str,
    words: &'w [(&'w str, T)],
) -> Option<T> {
    let given: String = section.get(key)?;
    let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
    if found.is_none() {
        let known = words.iter().map(|(word, _)| *word);
        section.report().unknown(&section.span_of(key), &section.key_path(key), key, &given, known);
    }
    found
}
