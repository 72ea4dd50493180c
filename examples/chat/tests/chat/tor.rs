//! Over Tor.
