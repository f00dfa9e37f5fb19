// Package testdata has a comment to mend.
package testdata

// Fixed returns a string, which is not English to check.
func Fixed() string {
	return "for ever" // no retry can fix it
}
