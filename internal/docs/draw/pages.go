package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

var (
	region = regexp.MustCompile(`(?s)(<!-- generated: (\w+) ([^\n]*?) -->\n)(.*?)(<!-- /generated -->)`)
	marks  = regexp.MustCompile(`<!-- /?generated\b`)
)

// fillPages adds the pages of docs and of chapters to files, with their regions filled in.
func fillPages(files map[string][]byte, repo fs.FS, recordings []*recording) error {
	for _, pattern := range []string{"docs/*.md", "[0-9]*/README.md"} {
		names, err := fs.Glob(repo, pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := fs.ReadFile(repo, name)
			if err == nil {
				files[name], err = fill(text, recordings)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// fill generates the regions of a page.
func fill(text []byte, recordings []*recording) (_ []byte, failed error) {
	regions := 0
	filled := region.ReplaceAllFunc(text, func(all []byte) []byte {
		regions++
		part := region.FindSubmatch(all)
		what, name := string(part[2]), string(part[3])
		var content string
		var err error
		switch what {
		case "picture":
			content, err = picture(recordings, name)
		case "table":
			content, err = table(recordings, name)
		default:
			err = fmt.Errorf("nothing generates a %q", what)
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s %s: %w", what, name, err)
		}
		return slices.Concat(part[1], []byte(content), part[5])
	})
	if failed == nil && len(marks.FindAll(text, -1)) != 2*regions {
		failed = fmt.Errorf("a region begins with <!-- generated: WHAT NAME -->, on a line of its own, " +
			"and ends with <!-- /generated -->")
	}
	return filled, failed
}

// picture shows a picture and names its recording.
func picture(recordings []*recording, name string) (string, error) {
	for _, r := range recordings {
		for _, p := range r.pictures {
			if of, alt := p.names(); of == name {
				alt := strings.NewReplacer("[", `\[`, "]", `\]`).Replace(alt)
				return fmt.Sprintf("![%s](pictures/%s.svg)\n\n[Recorded](data/%s.json): `%s`, %s, %s\n",
					alt, name, r.name, r.recorded.Command, r.recorded.Machine, r.recorded.Date), nil
			}
		}
	}
	return "", fmt.Errorf("no recording has this picture")
}

// table makes a table of the flat objects in one field of a recording. Its columns are the
// keys of the first object. Columns with numbers only are aligned to the right.
func table(recordings []*recording, name string) (string, error) {
	of, field, _ := strings.Cut(name, "/")
	i := slices.IndexFunc(recordings, func(r *recording) bool { return r.name == of })
	if i < 0 || recordings[i].fields[field] == nil {
		return "", fmt.Errorf("docs/data/%s.json has no field %q", of, field)
	}
	var objects []json.RawMessage
	if err := json.Unmarshal(recordings[i].fields[field], &objects); err != nil {
		return "", err
	}
	var columns, align []string
	var rows [][]string
	for _, object := range objects {
		keys, values, err := flat(object)
		if err != nil {
			return "", err
		}
		if columns == nil {
			columns = keys
			align = slices.Repeat([]string{"---:"}, len(keys))
		}
		if !slices.Equal(keys, columns) {
			return "", fmt.Errorf("the keys %q differ from %q", keys, columns)
		}
		var row []string
		for i, value := range values {
			if _, ok := value.(json.Number); !ok {
				align[i] = "---"
			}
			row = append(row, strings.NewReplacer("|", `\|`, "\n", "<br>").Replace(fmt.Sprint(value)))
		}
		rows = append(rows, row)
	}
	if rows == nil {
		return "", fmt.Errorf("no rows")
	}
	for i := range columns {
		columns[i] = strings.ReplaceAll(columns[i], "_", " ")
	}
	var b strings.Builder
	for _, row := range slices.Insert(rows, 0, columns, align) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String(), nil
}

// flat returns the keys and the values of an object, in their order.
func flat(object []byte) (keys []string, values []any, err error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber()
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, nil, fmt.Errorf("not an object: %s", object)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, nil, err
		}
		value, err := dec.Token()
		if err != nil {
			return nil, nil, err
		}
		if _, ok := value.(json.Delim); ok {
			return nil, nil, fmt.Errorf("%s is not flat", key)
		}
		keys, values = append(keys, key.(string)), append(values, value)
	}
	return keys, values, nil
}
