// Package exercises holds small programs, each with one mistake about informers and a
// test that fails because of it. README.md says how to work with them.
package exercises
