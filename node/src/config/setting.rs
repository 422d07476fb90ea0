//! Values that a configuration file may hold, each parsed once into a type that cannot be wrong.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;
use reqwest::Url;
use toml::de::DeValue;

/// A type that one TOML value can be read into.
pub trait Setting: Sized {
    /// What a right value looks like; completes the sentence "give …".
    const EXPECTED: &'static str;

    /// Reads the value, or says what is wrong with it ("is a number, not a string").
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

/// A type written as a TOML string.
pub trait TextSetting: Sized {
    /// See [`Setting::EXPECTED`].
    const EXPECTED: &'static str;

    /// Parses the string, or says what is wrong with it.
    fn from_text(text: &str) -> Result<Self, String>;
}

impl<T: TextSetting> Setting for T {
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => T::from_text(text),
            other => Err(format!("is {}, not a string", describe(other))),
        }
    }
}

/// Names a value's TOML type, with its article.
pub fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
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

macro_rules! integer_setting {
    ($($type:ty: $expected:literal),*) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let DeValue::Integer(number) = value else {
                    return Err(format!("is {}, not an integer", describe(value)));
                };
                <$type>::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| format!("{number} is out of range"))
            }
        }
    )*};
}

integer_setting!(u8: "an integer from 0 to 255", u16: "an integer from 0 to 65535",
    u32: "an integer of 0 or more", u64: "an integer of 0 or more", usize: "an integer of 0 or more");

impl TextSetting for String {
    const EXPECTED: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl TextSetting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("is empty".to_owned()),
            path if path.contains('\0') => Err("holds a NUL character".to_owned()),
            path => Ok(PathBuf::from(path)),
        }
    }
}

impl TextSetting for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:7420\" or \"[::1]:7420\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not an IP address and port"))
    }
}

impl TextSetting for Multiaddr {
    const EXPECTED: &'static str =
        "a multiaddr such as \"/ip4/0.0.0.0/udp/7422/quic-v1\" or \"/dns/mesh.acme.example/tcp/7422\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.parse::<Multiaddr>() {
            Ok(address) if address.is_empty() => Err("is an empty multiaddr".to_owned()),
            Ok(address) => Ok(address),
            Err(error) => Err(format!("{text:?} is not a multiaddr ({error})")),
        }
    }
}

/// An `http` or `https` URL with a host and no credentials in it (those belong in a header, read from the environment).
///
/// Shown without its query, where some services expect a key.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// The URL itself.
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(self.0.query().map(|_| "…"));
        shown.as_str().replace("%E2%80%A6", "…").fmt(f)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TextSetting for HttpUrl {
    const EXPECTED: &'static str = "a URL such as \"http://127.0.0.1:9000/mcp\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("has the scheme {:?}, not http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password, which would end up in logs".to_owned());
        }
        Ok(HttpUrl(url))
    }
}

impl TextSetting for Duration {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"5s\", \"1m30s\", \"24h\" or \"7d\"";

    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration"))
    }
}

/// A number of bytes, written as an integer or as `"8MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many KiB.
    pub const fn kib(count: u64) -> Self {
        ByteSize(count * 1024)
    }

    /// So many MiB.
    pub const fn mib(count: u64) -> Self {
        ByteSize(count * 1024 * 1024)
    }

    /// As a length in memory; saturates where `usize` is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"8MiB\" or a number of bytes";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(_) => u64::read(value).map(ByteSize),
            DeValue::String(text) => parse_size(text).ok_or_else(|| format!("{text:?} is not a size")),
            other => Err(format!("is {}, not a size", describe(other))),
        }
    }
}

/// Sums `number unit` pairs, such as `1m30s`. Whole numbers only; units must fall.
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS_MS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut total_ms: u64 = 0;
    let mut rest = text;
    let mut previous_ms = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| c.is_ascii_alphabetic());
        let (_, unit_ms) = *UNITS_MS.iter().find(|(name, _)| *name == unit)?;
        if unit_ms >= previous_ms {
            return None;
        }
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        (previous_ms, rest) = (unit_ms, after);
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

fn parse_size(text: &str) -> Option<ByteSize> {
    const UNITS: [(&str, u64); 7] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit) = split_where(text, |c| c.is_ascii_digit());
    let (_, factor) = *UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(factor).map(ByteSize)
}

fn split_where(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Setting + PartialEq + fmt::Debug>(toml: &str, expected: Result<T, &str>) {
        let value = DeValue::parse(toml).expect("the test's own TOML");
        match (T::read(value.get_ref()), expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{toml}"),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{toml}: {problem}"),
            (read, expected) => panic!("{toml}: got {read:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("500ms", 500), ("5s", 5_000), ("1m30s", 90_000), ("24h", 86_400_000), ("7d", 604_800_000)]
        {
            check(&format!("{text:?}"), Ok(Duration::from_millis(ms)));
        }
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5x",
            "1s1m",
            "1s1s",
            "99999999999999999999d",
            "213503982335d",
            "1.5s",
        ] {
            check::<Duration>(&format!("{bad:?}"), Err("is not a duration"));
        }
        check::<Duration>("5", Err("is an integer, not a string"));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("8", 8), ("0x10", 16), ("\"8B\"", 8), ("\"64KiB\"", 65_536), ("\"8 MiB\"", 8 << 20)]
        {
            check(text, Ok(ByteSize(bytes)));
        }
        for bad in ["\"\"", "\"8\"", "\"MiB\"", "\"8 mib\"", "\"-1B\"", "\"99999999999GiB\""] {
            check::<ByteSize>(bad, Err("is not a size"));
        }
        check::<ByteSize>("-1", Err("out of range"));
        check::<ByteSize>("true", Err("is a boolean, not a size"));
    }

    #[test]
    fn integers_hold_their_range() {
        check("255", Ok(255_u8));
        check::<u8>("256", Err("256 is out of range"));
        check::<u8>("-1", Err("-1 is out of range"));
        check::<u16>("1.0", Err("is a float, not an integer"));
    }

    #[test]
    fn addresses_and_urls() {
        check("\"[::1]:80\"", Ok(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80))));
        check::<SocketAddr>("\"localhost\"", Err("not an IP address and port"));
        check::<Multiaddr>("\"/ip4/999.0.0.1/tcp/1\"", Err("is not a multiaddr"));
        check::<Multiaddr>("\"\"", Err("empty multiaddr"));
        check::<HttpUrl>("\"ftp://x/\"", Err("not http or https"));
        check::<HttpUrl>("\"http://u:p@x/\"", Err("user name or password"));
        check::<HttpUrl>("\"nonsense\"", Err("is not a URL"));
    }
}
