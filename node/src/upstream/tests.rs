//! Sessions and supervisors against servers that behave, misbehave and die.

mod pipes;
