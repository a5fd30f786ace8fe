//! The simulator: the proxy core between model clients and model servers, in virtual time, driven by a seed.
//!
//! A run draws its circumstances from the seed (`profile`), lets clients ask (`clients`, `generate`) through links that
//! delay and cut (`net`) while servers and proxies fail (`faults`, `handover`, `node`, `host`, `pieces`, `overlap`), and checks every reply (`hear`,
//! `reply`, `frames`, `responses`, `history`, `linear`, `explore`, `explain`) and the end (`finish`). `item` says what memcached does, and `real` that it does.
//!
//! Knobs: `MAGENT_SIM_SEEDS` how many seeds, `MAGENT_SIM_STEPS` requests per seed, `MAGENT_SIM_TIME` as many seeds as fit into
//! so many seconds, `MAGENT_SIM_PROFILE` only this one, `MAGENT_SIM_SEED` only this seed (with one of the former: from this
//! seed on), `MAGENT_SIM_TRACE=1` every event.

mod accuse;
mod clients;
mod edge;
mod ejecting;
mod explain;
mod explore;
mod faults;
mod finish;
mod frames;
mod generate;
mod handover;
mod hear;
mod history;
mod host;
mod identity;
mod item;
mod kinds;
mod lags;
mod linear;
mod lists;
mod long;
mod memcached;
mod meta;
mod mix;
mod narrow;
mod net;
mod node;
mod op;
mod overlap;
mod pieces;
#[cfg(feature = "sabotage")]
mod planted;
mod profile;
mod real;
mod reloads;
mod reply;
mod request;
mod responses;
mod rng;
mod sabotage;
mod seeds;
mod sweep;
mod world;
