package readmes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func blocks(t *testing.T) []Block {
	t.Helper()
	all, err := Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestShownIsAccepted: a block accepts its own text, and also the same output from
// another day and another cluster.
func TestShownIsAccepted(t *testing.T) {
	other := strings.NewReplacer(
		"informers-e2e", "another", "demo-", "demo-x", "nginx:1.22", "nginx:2", "node kind-", "node other-",
		" 401", " 401", " 403", " 403", " 410", " 410", " 429", " 429", // status codes
		"127.0.0.1:4", "127.0.0.1:5", " 4", " 9", "v1.37.2\n", "v1.36.0\n", "E112", "E012", "pkg/mod/", "elsewhere/")
	for _, b := range blocks(t) {
		if err := b.Check(b.Text); err != nil {
			t.Error(err)
		}
		if b.Differ == nil { // nothing may differ
			continue
		}
		if err := b.Check(other.Replace(b.Text)); err != nil {
			t.Error(err)
		}
	}
}

// allowed returns whether another run may print the output with a change of line i. It uses only the
// words of the mark, and nothing that Check does.
func allowed(b Block, all []string, i int, change string) bool {
	word := func(word string) bool { return slices.Contains(b.Differ, word) }
	at := func(expr string, i int) bool {
		return i >= 0 && i < len(all) && regexp.MustCompile(expr).MatchString(all[i])
	}
	const updated, answer, command, synced, counted = `^handleUpdate .*(\)|→.*)$`, `^pod[/ ]`, `^\$ kubectl`, ` is synced$`, `^right after start`
	const looked = ` is to be deleted in \S+$|msg="is to be deleted" pod=\S+ in=\S+$`
	// opposite returns the next line on one side that does not move.
	opposite := func(i, side int) int {
		for i += side; word("runs") && at("^run$", i) || word("kubectl's answers") && at(answer, i); i += side {
		}
		return i
	}
	switch change {
	case "dropped": // one of several Updates, one of several runs, an intermediate count
		return word("Updates") && at(updated, i) && (at(updated, opposite(i, -1)) || at(updated, opposite(i, 1))) ||
			word("runs") && at("^run$", i) ||
			word("looks") && at(looked, i) && (at(looked, i-1) || at(looked, i+1)) ||
			word("counts on the way") && at(counted, i)
	case "doubled":
		return word("Updates") && at(updated, i) ||
			word("runs") && at("^run$", i) ||
			word("looks") && at(looked, i) ||
			word("counts on the way") && at(counted+"|^then", i)
	case "swapped":
		// A line can move past lines of other kinds.
		moves := func(float, among string) bool {
			return at(float, i) != at(float, i+1) && (!at(among, i) || !at(among, i+1))
		}
		return word("Updates") && at(updated, i) && at(updated, i+1) ||
			// Update, other, Update: there is still one on each side.
			word("Updates") && at(updated, i) != at(updated, i+1) && at(updated, opposite(i, -1)) && at(updated, opposite(i+1, 1)) ||
			word("looks") && at(looked, i) && at(looked, i+1) ||
			word("place of the Update") && moves("^handleUpdate", "^(handleUpdate|cache is synced)") ||
			word("runs") && moves("^run$", "^run$|^cache is synced$") ||
			word("place of the leader") && moves("msg=leader ", `msg=(leader |"Attempting)`) ||
			word("kubectl's answers") && moves(answer, answer+"|"+command) ||
			word("place of the store's sync") && moves("^store is synced$", synced)
	}
	return false
}

// TestChangesAreRejected: each line of each block is changed, dropped, doubled, and
// swapped with the next one. Check must report the change, unless the mark allows it.
func TestChangesAreRejected(t *testing.T) {
	rejected, accepted := 0, 0
	for _, b := range blocks(t) {
		all := lines(b.Text)
		if b.Kind == "diff" {
			all = all[:min(len(all), 10)] // compared byte for byte, so any line will do
			b.Text = strings.Join(all, "\n") + "\n"
		}
		for i := range all {
			changes := map[string][]string{
				"wrong":   slices.Replace(slices.Clone(all), i, i+1, "wrong "+all[i]),
				"worse":   slices.Replace(slices.Clone(all), i, i+1, all[i]+" wrong"),
				"dropped": slices.Delete(slices.Clone(all), i, i+1),
				"doubled": slices.Insert(slices.Clone(all), i, all[i]),
			}
			if i+1 < len(all) && all[i] != all[i+1] {
				swapped := slices.Clone(all)
				swapped[i], swapped[i+1] = all[i+1], all[i]
				changes["swapped"] = swapped
			}
			for change, run := range changes {
				err := b.Check(strings.Join(run, "\n") + "\n")
				if ok := b.Kind != "diff" && allowed(b, all, i, change); ok != (err == nil) {
					t.Errorf("%s, %s: line %q %s: accepted %t, want %t\n%v", b.File, b.Command, all[i], change, err == nil, ok, err)
				}
				if err != nil {
					rejected++
				} else {
					accepted++
				}
			}
		}
	}
	t.Logf("%d changes rejected, %d accepted", rejected, accepted)
	if rejected < 400 {
		t.Errorf("only %d changes rejected", rejected)
	}
}

func TestBlocks(t *testing.T) {
	const mark = "<!-- output: x; may differ: names -->\n"
	for name, test := range map[string]struct{ text, want string }{
		"good":         {"a\n\n" + mark + "```text\nnode a\n```\n", ""},
		"no mark":      {"a\n\n```text\nnode a\n```\n", `a.md: no mark says what printed the block that begins with "node a"`},
		"no block":     {mark + "\n```sh\nls\n```\n", "a.md: 1 marks, and 0 blocks directly below one"},
		"unknown word": {strings.Replace(mark, "names", "names, all", 1) + "```text\na\n```\n", `a.md: no rule says how "all" may differ, in <!-- output: x; may differ: names, all -->`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "a.md"), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got := ""
			if _, err := Blocks(dir); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

// TestWrite: only the text between the fences changes, also in a list.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.md")
	text := "one\n\n- two\n\n  <!-- stderr: x -->\n  ```text\n  old\n\n  old\n  ```\n\n<!-- output: y; may differ: names -->\n```text\nold\n```\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := Blocks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].Write(dir, "new\n\n$1\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(text, "  old\n\n  old\n", "  new\n\n  $1\n", 1); string(got) != want {
		t.Errorf("wrote\n%s\nwant\n%s", got, want)
	}
	if all, err = Blocks(dir); err != nil || all[0].Text != "new\n\n$1\n" || all[1].Text != "old\n" {
		t.Errorf("read again: %+v, %v", all, err)
	}
}
