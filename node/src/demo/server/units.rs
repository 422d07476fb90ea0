//! Units of measurement.

use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::DemoTool;

pub(super) fn tools() -> Vec<DemoTool> {
    vec![
        DemoTool::new(
            "convert_units",
            "Convert units",
            "Converts a quantity between units of length, mass, temperature, volume, speed, area, time or data.",
            convert,
        ),
        DemoTool::new(
            "list_units",
            "List units",
            "Lists the units that convert_units knows, of one kind or of all.",
            list,
        ),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars", inline)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Length,
    Mass,
    Temperature,
    Volume,
    Speed,
    Area,
    Time,
    Data,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Length => "length",
            Kind::Mass => "mass",
            Kind::Temperature => "temperature",
            Kind::Volume => "volume",
            Kind::Speed => "speed",
            Kind::Area => "area",
            Kind::Time => "time",
            Kind::Data => "data",
        }
    }
}

/// A unit: a quantity of it in the kind's base unit is `(value + offset) * factor`.
struct Unit {
    kind: Kind,
    symbol: &'static str,
    /// Other names, in lower case and in the singular.
    names: &'static [&'static str],
    factor: f64,
    offset: f64,
}

const fn unit(kind: Kind, symbol: &'static str, names: &'static [&'static str], factor: f64) -> Unit {
    Unit { kind, symbol, names, factor, offset: 0.0 }
}

/// Every unit. Factors are exact by definition: the international yard and pound (1959), the SI (2019), IEC 80000-13.
const UNITS: &[Unit] = &[
    unit(Kind::Length, "m", &["metre", "meter"], 1.0),
    unit(Kind::Length, "km", &["kilometre", "kilometer"], 1000.0),
    unit(Kind::Length, "cm", &["centimetre", "centimeter"], 0.01),
    unit(Kind::Length, "mm", &["millimetre", "millimeter"], 0.001),
    unit(Kind::Length, "in", &["inch", "inches"], 0.0254),
    unit(Kind::Length, "ft", &["foot", "feet"], 0.3048),
    unit(Kind::Length, "yd", &["yard"], 0.9144),
    unit(Kind::Length, "mi", &["mile"], 1609.344),
    unit(Kind::Length, "nmi", &["nautical mile"], 1852.0),
    unit(Kind::Mass, "kg", &["kilogram", "kilogramme"], 1.0),
    unit(Kind::Mass, "g", &["gram", "gramme"], 0.001),
    unit(Kind::Mass, "mg", &["milligram"], 0.000_001),
    unit(Kind::Mass, "t", &["tonne", "metric ton"], 1000.0),
    unit(Kind::Mass, "lb", &["pound"], 0.453_592_37),
    unit(Kind::Mass, "oz", &["ounce"], 0.028_349_523_125),
    unit(Kind::Mass, "st", &["stone"], 6.350_293_18),
    unit(Kind::Temperature, "K", &["kelvin"], 1.0),
    Unit { kind: Kind::Temperature, symbol: "°C", names: &["c", "celsius"], factor: 1.0, offset: 273.15 },
    Unit {
        kind: Kind::Temperature,
        symbol: "°F",
        names: &["f", "fahrenheit"],
        factor: 5.0 / 9.0,
        offset: 459.67,
    },
    unit(Kind::Volume, "l", &["litre", "liter"], 1.0),
    unit(Kind::Volume, "ml", &["millilitre", "milliliter"], 0.001),
    unit(Kind::Volume, "m³", &["m3", "cubic metre", "cubic meter"], 1000.0),
    unit(Kind::Volume, "gal", &["us gallon", "gallon"], 3.785_411_784),
    unit(Kind::Volume, "imp gal", &["imperial gallon"], 4.546_09),
    unit(Kind::Volume, "pt", &["us pint", "pint"], 0.473_176_473),
    unit(Kind::Volume, "fl oz", &["us fluid ounce", "fluid ounce"], 0.029_573_529_562_5),
    unit(Kind::Speed, "m/s", &["metre per second", "meter per second"], 1.0),
    unit(Kind::Speed, "km/h", &["kph", "kilometre per hour", "kilometer per hour"], 1.0 / 3.6),
    unit(Kind::Speed, "mph", &["mi/h", "mile per hour", "miles per hour"], 0.447_04),
    unit(Kind::Speed, "kn", &["knot"], 1852.0 / 3600.0),
    unit(Kind::Area, "m²", &["m2", "square metre", "square meter"], 1.0),
    unit(Kind::Area, "km²", &["km2", "square kilometre", "square kilometer"], 1_000_000.0),
    unit(Kind::Area, "ha", &["hectare"], 10_000.0),
    unit(Kind::Area, "ft²", &["ft2", "square foot", "square feet"], 0.092_903_04),
    unit(Kind::Area, "ac", &["acre"], 4_046.856_422_4),
    unit(Kind::Time, "s", &["second"], 1.0),
    unit(Kind::Time, "ms", &["millisecond"], 0.001),
    unit(Kind::Time, "min", &["minute"], 60.0),
    unit(Kind::Time, "h", &["hour"], 3600.0),
    unit(Kind::Time, "d", &["day"], 86_400.0),
    unit(Kind::Time, "wk", &["week"], 604_800.0),
    unit(Kind::Data, "B", &["byte"], 1.0),
    unit(Kind::Data, "kB", &["kilobyte"], 1e3),
    unit(Kind::Data, "MB", &["megabyte"], 1e6),
    unit(Kind::Data, "GB", &["gigabyte"], 1e9),
    unit(Kind::Data, "TB", &["terabyte"], 1e12),
    unit(Kind::Data, "KiB", &["kibibyte"], 1024.0),
    unit(Kind::Data, "MiB", &["mebibyte"], 1_048_576.0),
    unit(Kind::Data, "GiB", &["gibibyte"], 1_073_741_824.0),
];

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Convert {
    /// The quantity.
    value: f64,
    /// Its unit: a symbol or a name, such as km/h or kilometres per hour.
    from: String,
    /// The unit that is wanted, of the same kind.
    to: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Converted {
    value: f64,
    /// The symbol of its unit.
    unit: String,
    kind: Kind,
    /// The conversion in words.
    text: String,
}

fn convert(input: Convert) -> Result<Converted, String> {
    let (from, to) = (find(&input.from)?, find(&input.to)?);
    if from.kind != to.kind {
        let [a, b] = [from, to].map(|unit| format!("{} is a unit of {}", unit.symbol, unit.kind.name()));
        return Err(format!("{a}, {b}: only units of one kind can be converted"));
    }
    let base = (input.value + from.offset) * from.factor;
    if base < 0.0 && from.kind == Kind::Temperature {
        return Err(format!("{} {} is below absolute zero", input.value, from.symbol));
    }
    let value = tidy(base / to.factor - to.offset);
    if !value.is_finite() {
        return Err(format!("{} {} is too much to express in {}", input.value, from.symbol, to.symbol));
    }
    let text = format!("{} {} = {value} {}", input.value, from.symbol, to.symbol);
    Ok(Converted { value, unit: to.symbol.to_owned(), kind: to.kind, text })
}

/// Twelve significant digits: what the arithmetic of floating point leaves behind is not shown.
fn tidy(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// The unit of that symbol (in its own case first) or name, in the singular or the plural.
fn find(name: &str) -> Result<&'static Unit, String> {
    let name = name.trim();
    let singular = singular(&name.to_lowercase());
    let is_symbol = |unit: &&Unit| unit.symbol == name;
    let is_named =
        |unit: &&Unit| unit.names.iter().any(|known| *known == singular || *known == name.to_lowercase());
    let is_like = |unit: &&Unit| unit.symbol.to_lowercase() == name.to_lowercase();
    let found = UNITS.iter().find(is_symbol).or_else(|| UNITS.iter().find(is_named));
    found.or_else(|| UNITS.iter().find(is_like)).ok_or_else(|| unknown(name))
}

/// `kilometres per hour` is `kilometre per hour`.
fn singular(name: &str) -> String {
    let (head, tail) = name.split_once(" per ").map_or((name, None), |(head, tail)| (head, Some(tail)));
    let head = head.strip_suffix('s').filter(|head| head.len() > 2).unwrap_or(head);
    tail.map_or_else(|| head.to_owned(), |tail| format!("{head} per {tail}"))
}

fn unknown(name: &str) -> String {
    let near = crate::config::fault::nearest(
        &name.to_lowercase(),
        UNITS.iter().flat_map(|unit| unit.names).copied(),
    );
    match near {
        Some(near) => format!("there is no unit {name:?}: did you mean {near}?"),
        None => format!("there is no unit {name:?}: list_units names those that there are"),
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct List {
    /// Only units of this kind.
    kind: Option<Kind>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Listed {
    units: Vec<Known>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Known {
    symbol: String,
    names: Vec<String>,
    kind: Kind,
}

fn list(List { kind }: List) -> Result<Listed, String> {
    let units = UNITS.iter().filter(|unit| kind.is_none_or(|kind| kind == unit.kind));
    let known = units.map(|unit| Known {
        symbol: unit.symbol.to_owned(),
        names: unit.names.iter().map(|name| (*name).to_owned()).collect(),
        kind: unit.kind,
    });
    Ok(Listed { units: known.collect() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn run(name: &str, arguments: Value) -> Result<Value, String> {
        super::super::tool::run(&tools(), name, arguments)
    }

    fn converted(value: f64, from: &str, to: &str) -> Result<Value, String> {
        run("convert_units", json!({ "value": value, "from": from, "to": to }))
            .map(|result| result["value"].clone())
    }

    #[test]
    fn quantities_are_converted() {
        for (value, from, to, expected) in [
            (26.2, "miles", "km", 42.164_812_8),
            (180.0, "lb", "kilograms", 81.646_626_6),
            (98.6, "°F", "C", 37.0),
            (-40.0, "celsius", "Fahrenheit", -40.0),
            (0.0, "K", "°C", -273.15),
            (1.0, "gallon", "litres", 3.785_411_784),
            (100.0, "kilometres per hour", "mph", 62.137_119_223_7),
            (1.0, "ha", "acre", 2.471_053_814_67),
            (90.0, "minutes", "h", 1.5),
            (1.0, "GiB", "MB", 1_073.741_824),
            (6.0, "feet", "inches", 72.0),
        ] {
            assert_eq!(converted(value, from, to), Ok(json!(expected)), "{value} {from} to {to}");
        }
    }

    #[test]
    fn every_unit_converts_to_and_fro_and_has_names_of_its_own() {
        let mut names = BTreeSet::new();
        for unit in UNITS {
            for name in unit.names.iter().copied().chain([unit.symbol]) {
                assert!(names.insert(name), "{name} is two units");
                assert_eq!(find(name).unwrap().symbol, unit.symbol, "{name}");
            }
            for other in UNITS.iter().filter(|other| other.kind == unit.kind) {
                let there = converted(12.5, unit.symbol, other.symbol).unwrap();
                let back = converted(there.as_f64().unwrap(), other.symbol, unit.symbol).unwrap();
                let error = (back.as_f64().unwrap() - 12.5).abs();
                assert!(error < 1e-6, "{} {}: {back}", unit.symbol, other.symbol);
            }
        }
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(
            converted(1.0, "kg", "km").unwrap_err().contains("kg is a unit of mass, km is a unit of length")
        );
        assert!(converted(1.0, "kilometer", "mille").unwrap_err().contains("did you mean mile"));
        assert!(converted(1.0, "xyzzy", "m").unwrap_err().contains("list_units"));
        assert!(converted(-300.0, "°C", "K").unwrap_err().contains("absolute zero"));
        assert!(converted(f64::MAX, "km", "mm").unwrap_err().contains("too much"));
    }

    #[test]
    fn units_are_listed_by_kind() {
        let all = run("list_units", json!({})).unwrap();
        assert_eq!(all["units"].as_array().unwrap().len(), UNITS.len());
        let speeds = run("list_units", json!({ "kind": "speed" })).unwrap();
        assert!(speeds["units"].as_array().unwrap().iter().all(|unit| unit["kind"] == "speed"));
    }
}
