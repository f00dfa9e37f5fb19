package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	region = regexp.MustCompile(`(?s)(<!-- generated: (\w+) ([^\n]*?) -->\n)(.*?)(<!-- /generated -->)`)
	mark   = regexp.MustCompile(`<!-- /?generated\b`)
)

// generators make the content of a region, by the word after "generated:". Each gets the
// rest of the mark.
var generators = map[string]func([]*Recording, string) (string, error){
	"picture": embed,
	"table":   table,
}

// regions returns the pages of docs and of chapters, with their regions filled in.
func regions(root string, recordings []*Recording) (map[string][]byte, error) {
	docs, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		return nil, err
	}
	chapters, err := filepath.Glob(filepath.Join(root, "[0-9]*/README.md"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range append(docs, chapters...) {
		name, err := filepath.Rel(root, path)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		matches := region.FindAllSubmatch(text, -1)
		if len(mark.FindAll(text, -1)) != 2*len(matches) {
			return nil, fmt.Errorf("%s: a region begins with <!-- generated: WHAT NAME -->, on a line of its own, and ends with <!-- /generated -->", name)
		}
		var out bytes.Buffer
		end := 0
		for _, m := range region.FindAllSubmatchIndex(text, -1) {
			what, arg := string(text[m[4]:m[5]]), string(text[m[6]:m[7]])
			generate, ok := generators[what]
			if !ok {
				return nil, fmt.Errorf("%s: nothing generates a %q", name, what)
			}
			filled, err := generate(recordings, arg)
			if err != nil {
				return nil, fmt.Errorf("%s: %s %s: %w", name, what, arg, err)
			}
			out.Write(text[end:m[3]])
			out.WriteString(filled)
			end = m[10]
		}
		out.Write(text[end:])
		files[name] = out.Bytes()
	}
	return files, nil
}

// embed shows a picture and names its recording.
func embed(recordings []*Recording, name string) (string, error) {
	for _, r := range recordings {
		for _, t := range r.Timelines {
			if t.Name == name {
				alt := html.EscapeString(strings.Join(strings.Fields(t.Alt), " "))
				return fmt.Sprintf("<img alt=\"%s\" src=\"%s\">\n\n[Recorded](data/%s.json): `%s`, %s, %s\n",
					alt, path(name), r.Name, r.Recorded.Command, r.Recorded.Machine, r.Recorded.Date), nil
			}
		}
	}
	return "", fmt.Errorf("no recording has this picture")
}

// table makes a table of the flat objects in one field of a recording. Its columns are
// the keys, in the order of their first appearance.
func table(recordings []*Recording, name string) (string, error) {
	recording, field, _ := strings.Cut(name, "/")
	i := slices.IndexFunc(recordings, func(r *Recording) bool { return r.Name == recording })
	if i < 0 || recordings[i].Fields[field] == nil {
		return "", fmt.Errorf("docs/data/%s.json has no field %q", recording, field)
	}
	var objects []json.RawMessage
	if err := json.Unmarshal(recordings[i].Fields[field], &objects); err != nil {
		return "", err
	}
	var columns []string
	var lines []map[string]string
	texts := map[string]bool{} // columns with values that are not numbers
	for _, object := range objects {
		dec := json.NewDecoder(bytes.NewReader(object))
		dec.UseNumber()
		if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
			return "", fmt.Errorf("not an object: %s", object)
		}
		line := map[string]string{}
		for dec.More() {
			token, err := dec.Token()
			if err != nil {
				return "", err
			}
			key := token.(string)
			if !slices.Contains(columns, key) {
				columns = append(columns, key)
			}
			var value any
			if err := dec.Decode(&value); err != nil {
				return "", err
			}
			switch v := value.(type) {
			case nil:
			case json.Number, bool:
				line[key] = fmt.Sprint(v)
			case string:
				line[key] = strings.NewReplacer("|", `\|`, "\n", "<br>").Replace(v)
			default:
				return "", fmt.Errorf("%s is not flat", key)
			}
			if _, ok := value.(json.Number); !ok && value != nil {
				texts[key] = true
			}
		}
		lines = append(lines, line)
	}
	if len(columns) == 0 {
		return "", fmt.Errorf("no rows")
	}
	var b strings.Builder
	cells := func(cell func(string) string) {
		for _, c := range columns {
			b.WriteString("| " + cell(c) + " ")
		}
		b.WriteString("|\n")
	}
	cells(func(c string) string { return strings.ReplaceAll(c, "_", " ") })
	cells(func(c string) string {
		if texts[c] {
			return "---"
		}
		return "---:"
	})
	for _, line := range lines {
		cells(func(c string) string { return line[c] })
	}
	return b.String(), nil
}
