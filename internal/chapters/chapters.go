package chapters

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Names returns the directories of the chapters in root, in the order of the lesson: those
// with a number, a name, and a main.go.
func Names(root string) ([]string, error) {
	mains, err := filepath.Glob(filepath.Join(root, "[0-9][0-9]-*", "main.go"))
	var chapters []string
	for _, main := range mains {
		chapters = append(chapters, filepath.Base(filepath.Dir(main)))
	}
	slices.Sort(chapters)
	return chapters, err
}

// A Readme is what the README.md of a chapter says about the chapter.
type Readme struct {
	Text      string
	Parent    string   // the chapter that it builds on, or "" for the first
	Args      []string // of "go run" under "Run it"
	Meanwhile string   // what a reader types in another terminal, or ""
}

var (
	parent   = regexp.MustCompile(`(?m)^From \[(\d\d-[^]]+)\]\(`)
	commands = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
)

// ReadReadme reads the README.md of a chapter in root.
func ReadReadme(root, chapter string) (Readme, error) {
	data, err := os.ReadFile(filepath.Join(root, chapter, "README.md"))
	if err != nil {
		return Readme{}, err
	}
	r := Readme{Text: string(data)}
	if m := parent.FindStringSubmatch(r.Text); m != nil {
		r.Parent = m[1]
	}
	// A block with go run, and perhaps one for the other terminal before the output.
	run, _, _ := strings.Cut(r.Text, "<!-- output: ")
	blocks := commands.FindAllStringSubmatch(run, -1)
	i := slices.IndexFunc(blocks, func(block []string) bool { return strings.HasPrefix(block[1], "go run ./"+chapter) })
	if i < 0 {
		return Readme{}, fmt.Errorf("%s/README.md does not say go run ./%s before its output", chapter, chapter)
	}
	r.Args = strings.Fields(blocks[i][1])[3:]
	if i+1 < len(blocks) {
		r.Meanwhile = blocks[i+1][1]
	}
	return r, nil
}
