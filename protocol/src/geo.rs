//! Places: ISO 3166-1 alpha-2 countries, sets of them, and the groups that stand for several.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Why a place was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeoError {
    /// Not an assigned ISO 3166-1 alpha-2 code.
    #[error("`{0}` is not an ISO 3166-1 alpha-2 country code such as DE or GB{hint}", hint = hint(.0))]
    Country(String),
    /// Neither a country nor a group that this build knows.
    #[error("`{0}` is neither an ISO 3166-1 alpha-2 country code nor one of the groups EU, EEA{hint}", hint = hint(.0))]
    Place(String),
}

/// The codes that people write by mistake: names of the same countries that ISO 3166-1 does not use.
fn hint(text: &str) -> &'static str {
    match text.to_ascii_uppercase().as_str() {
        "UK" => "; the United Kingdom is GB",
        "EL" => "; Greece is GR",
        "USA" => "; the United States are US",
        _ => "",
    }
}

/// Every assigned ISO 3166-1 alpha-2 code (249 codes, ISO 3166-1:2020 as maintained in 2026), in alphabetical order.
const ASSIGNED: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK \
FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM \
JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS \
MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM \
US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

const WORDS: usize = 11;

/// One country: an assigned ISO 3166-1 alpha-2 code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(u16);

impl Country {
    const fn from_letters(letters: [u8; 2]) -> Self {
        Self((letters[0] - b'A') as u16 * 26 + (letters[1] - b'A') as u16)
    }

    const fn letters(self) -> [u8; 2] {
        [b'A' + (self.0 / 26) as u8, b'A' + (self.0 % 26) as u8]
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.letters();
        write!(f, "{}{}", char::from(first), char::from(second))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Country {
    type Err = GeoError;

    fn from_str(text: &str) -> Result<Self, GeoError> {
        let refuse = || GeoError::Country(text.chars().take(16).collect());
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| refuse())?;
        if !letters.iter().all(u8::is_ascii_uppercase) {
            return Err(refuse());
        }
        let country = Self::from_letters(letters);
        if ALL.contains(country) { Ok(country) } else { Err(refuse()) }
    }
}

impl<C> Encode<C> for Country {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Country {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(|error: GeoError| decode::Error::message(error.to_string()))
    }
}

/// A set of countries. A bitmap over all two-letter codes, so that a subset test is eleven word operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CountrySet([u64; WORDS]);

const ALL: CountrySet = CountrySet::from_codes(ASSIGNED);

impl CountrySet {
    /// The set with no country in it.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Every assigned country.
    pub const ALL: Self = ALL;

    /// Reads space-separated codes at compile time; only for this file's own tables.
    const fn from_codes(codes: &str) -> Self {
        let (bytes, mut set, mut at) = (codes.as_bytes(), Self::EMPTY, 0);
        while at + 1 < bytes.len() {
            set = set.with(Country::from_letters([bytes[at], bytes[at + 1]]));
            at += 3;
        }
        set
    }

    const fn with(mut self, country: Country) -> Self {
        self.0[country.0 as usize / 64] |= 1 << (country.0 % 64);
        self
    }

    /// Adds `country`.
    pub fn insert(&mut self, country: Country) {
        *self = self.with(country);
    }

    /// Whether `country` is in the set.
    pub const fn contains(&self, country: Country) -> bool {
        self.0[country.0 as usize / 64] & (1 << (country.0 % 64)) != 0
    }

    /// Whether every country of `self` is in `other`. The empty set is a subset of every set.
    pub fn is_subset(&self, other: &Self) -> bool {
        // Without an early exit: eleven words in a row are faster than eleven branches.
        self.0.iter().zip(&other.0).fold(0, |beyond, (mine, theirs)| beyond | (mine & !theirs)) == 0
    }

    /// The countries that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// The countries that are in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// The countries of `self` that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    fn combine(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self(core::array::from_fn(|i| op(self.0[i], other.0[i])))
    }

    /// Whether no country is in the set.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// How many countries are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The countries in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = Country> + '_ {
        (0..26 * 26).map(Country).filter(|country| self.contains(*country))
    }
}

impl FromIterator<Country> for CountrySet {
    fn from_iter<I: IntoIterator<Item = Country>>(countries: I) -> Self {
        countries.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// Codes in alphabetical order between commas; a group's name when the set is exactly that group.
impl fmt::Display for CountrySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(group) = GROUPS.iter().find(|group| group.members == *self) {
            return f.write_str(group.name);
        }
        for (at, country) in self.iter().enumerate() {
            write!(f, "{}{country}", if at > 0 { "," } else { "" })?;
        }
        if self.is_empty() { f.write_str("nowhere") } else { Ok(()) }
    }
}

impl fmt::Debug for CountrySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// An array of codes in strictly ascending order.
impl<C> Encode<C> for CountrySet {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(self.len() as u64)?;
        self.iter().try_for_each(|country| country.encode(e, ctx))
    }
}

impl<'b, C> Decode<'b, C> for CountrySet {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        d.array_iter_with(ctx)?.collect::<Result<Self, _>>()
    }
}

/// A named group of countries as of a date. The tables are this build's, never a peer's: a group's meaning is fixed by
/// the reader, and constraints travel with the group already resolved to countries.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The name that constraints use.
    pub name: &'static str,
    /// The day from which this membership holds, `YYYY-MM-DD`.
    pub version: &'static str,
    /// Who is in it.
    pub members: CountrySet,
}

const EU_2020: &str = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE";

/// The groups that this build knows: the European Union since 2020-02-01 (Treaty on European Union, article 52, less the
/// United Kingdom) and the European Economic Area (EEA Agreement: the EU with Iceland, Liechtenstein and Norway).
pub const GROUPS: &[Group] = &[
    Group { name: "EU", version: "2020-02-01", members: CountrySet::from_codes(EU_2020) },
    Group {
        name: "EEA",
        version: "2020-02-01",
        members: CountrySet::from_codes(EU_2020)
            .with(Country::from_letters(*b"IS"))
            .with(Country::from_letters(*b"LI"))
            .with(Country::from_letters(*b"NO")),
    },
];

/// The countries that `text` stands for: a country's code, or a group's name.
///
/// # Errors
/// [`GeoError::Place`] for anything else: an unknown name never becomes an empty or a full set.
pub fn resolve_place(text: &str) -> Result<CountrySet, GeoError> {
    if let Some(group) = GROUPS.iter().find(|group| group.name == text) {
        return Ok(group.members);
    }
    let country = text.parse::<Country>().map_err(|_| GeoError::Place(text.chars().take(16).collect()))?;
    Ok(CountrySet::EMPTY.with(country))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(codes: &str) -> CountrySet {
        codes.split_whitespace().map(|code| code.parse::<Country>().unwrap()).collect()
    }

    #[test]
    fn the_tables_have_the_published_sizes() {
        assert_eq!(CountrySet::ALL.len(), 249);
        assert_eq!(resolve_place("EU").unwrap().len(), 27);
        assert_eq!(resolve_place("EEA").unwrap().len(), 30);
        assert!(resolve_place("EU").unwrap().is_subset(&resolve_place("EEA").unwrap()));
    }

    #[test]
    fn what_is_no_country_is_refused_with_a_hint() {
        assert!("UK".parse::<Country>().unwrap_err().to_string().contains("GB"));
        for bad in ["", "D", "de", "XX", "EU", "DEU", "é"] {
            assert!(bad.parse::<Country>().is_err(), "{bad}");
        }
        assert!(resolve_place("EFTA").is_err());
    }

    #[test]
    fn a_site_in_two_countries_does_not_satisfy_one() {
        assert!(!set("DE US").is_subset(&set("DE")));
        assert!(set("DE").is_subset(&set("DE US")));
        assert!(CountrySet::EMPTY.is_subset(&set("DE")));
    }

    #[test]
    fn sets_show_and_encode_in_alphabetical_order() {
        assert_eq!(set("US DE").to_string(), "DE,US");
        assert_eq!(resolve_place("EU").unwrap().to_string(), "EU");
        let bytes = crate::codec::encode(&set("US DE"));
        assert_eq!(crate::codec::decode::<CountrySet>(&bytes, 64), Ok(set("DE US")));
        let unsorted = [0x82, 0x62, b'U', b'S', 0x62, b'D', b'E'];
        assert!(crate::codec::decode::<CountrySet>(&unsorted, 64).is_err());
    }
}
