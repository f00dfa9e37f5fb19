package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// lines runs cmd and calls f, unless it is nil, with each line of its output. It
// does not print the output. If the command fails, the error names the cause found
// in the output.
func lines(cmd *exec.Cmd, f func(line string)) error {
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var output bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(io.TeeReader(r, &output)); s.Scan(); {
			if f != nil {
				f(s.Text())
			}
		}
		_, _ = io.Copy(&output, r) // if the scanner stopped at a line that is too long
	}()
	err := cmd.Run()
	_ = w.Close()
	<-read
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, cause(output.String()))
	}
	return nil
}

// causes matches the messages that explain a failure, wherever they are in a log.
var causes = regexp.MustCompile(`listen tcp \S+: bind: address already in use|(?:[^\s"':]+: )?no space left on device|panic: .*`)

// logged matches the error in a line of kwokctl's JSON log.
var logged = regexp.MustCompile(`"err":"((?:[^"\\]|\\.)*)"`)

// cause returns the one line of a program's output that says why it failed.
func cause(output string) string {
	if found := causes.FindString(output); found != "" {
		return found
	}
	all := strings.Split(strings.TrimSpace(output), "\n")
	last := all[len(all)-1]
	if found := logged.FindStringSubmatch(last); found != nil {
		last = found[1]
	}
	return last
}
