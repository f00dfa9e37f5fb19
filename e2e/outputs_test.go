package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/readmes"
)

const makeDemo = "make demo"

// TestOutputs runs each chapter as its README says: a pod web exists before, and a reader types
// in another terminal while the chapter runs.
func TestOutputs(t *testing.T) {
	t.Parallel()
	blocks, err := readmes.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	commands := []string{makeDemo}
	all, err := chapters.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, chapter := range all {
		readme, err := chapters.ReadReadme(root, chapter)
		if err != nil {
			t.Fatal(err)
		}
		command := strings.Join(append([]string{"go run ./" + chapter}, readme.Args...), " ")
		commands = append(commands, command)
		i := slices.IndexFunc(blocks, func(b readmes.Block) bool { return b.Kind == "output" && b.Command == command })
		if i < 0 {
			t.Fatalf("no README shows the output of %s", command)
		}
		t.Run(chapter, func(t *testing.T) {
			t.Parallel()
			if cluster.Which == "current" && strings.Contains(readme.Meanwhile, "crd") {
				t.Skip("current: everyone on the cluster would see the CRD")
			}
			for late, tries := true, 3; late && tries > 0; tries-- {
				late = false
				s := &scene{}
				testenv.Test(t, features.New("the README").WithLabel("part", "outputs").
					WithSetup("with a pod web that is ready", s.setup(func(t *testing.T) {
						s.create(t, "web")
						s.awaitReady(t, "web")
					})).
					Assess("shows what a run prints", step(func(t *testing.T) {
						var printed string
						if printed, late = s.follow(t, chapter, readme, blocks[i]); !late || tries == 1 {
							checkOutput(t, command, printed)
						}
					})).
					Feature())
			}
		})
	}
	for _, b := range blocks {
		if b.Kind == "output" && !slices.Contains(commands, b.Command) {
			t.Errorf("%s: no test runs %s", b.File, b.Command)
		}
	}
}

// typed matches the first line that comes after the reader has typed in the other terminal: about nginx, about
// widgets, or about the end of a fault.
var typed = regexp.MustCompile(`/nginx|^widgets\.|fault \w+ is over$`)

// timed matches a line whose time has come before the reader has typed all, on a busy machine.
var timed = regexp.MustCompile(`fault \w+ is over\n|: resync, `)

// follow does what a README says, and returns what the chapter prints until all that is shown has
// come, as if its namespace were default. late: the reader has typed too slowly for that.
func (s *scene) follow(t *testing.T, chapter string, readme chapters.Readme, shown readmes.Block) (_ string, late bool) {
	t.Helper()
	args := slices.Clone(readme.Args)
	if i := slices.Index(args, metav1.NamespaceDefault); i >= 0 {
		args = slices.Delete(args, i-1, i+1) // start names the test's namespace
	}
	s.chapter = s.start(t, chapter, args...)
	// The log of 12 is on stdout, with client-go's line about the detector that only tests use.
	detector := regexp.MustCompile(`(?m)^.*Mutation detector is enabled.*\n`)
	printed := func() string {
		out := detector.ReplaceAllString(s.chapter.Stdout.String(), "")
		return strings.ReplaceAll(out, s.namespace+"/", metav1.NamespaceDefault+"/")
	}
	await := func(lines []string) {
		deadline := time.After(2 * timeout)
		for {
			changed := s.chapter.Changed()
			missing := slices.ContainsFunc(lines, func(line string) bool { return !shown.Has(line, printed()) })
			if !missing || s.chapter.Ended() {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				return // the check of the output says what is missing
			}
		}
	}
	lines := strings.Split(strings.TrimSuffix(shown.Text, "\n"), "\n")
	if readme.Meanwhile != "" {
		before := slices.IndexFunc(lines, typed.MatchString)
		if before < 0 {
			t.Fatalf("%s: no line of the output matches %s", shown.File, typed)
		}
		await(lines[:before])
		s.shell(t, readme.Meanwhile)
		late = timed.MatchString(printed())
	}
	await(lines)
	if !s.chapter.Ended() {
		s.interrupt(t)
	}
	if code := s.chapter.End(t, timeout); code != 0 {
		t.Errorf("%s: exit code %d, stderr:\n%s", chapter, code, &s.chapter.Stderr)
	}
	return printed(), late
}

// shell runs commands in a terminal whose namespace is the scene's.
func (s *scene) shell(t *testing.T, commands string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.ReplaceAll(commands, "nginx:1.22", cluster.Nginx))
	cmd.Dir = root
	cmd.Env = append(slices.Clone(cluster.Env), "KUBECONFIG="+s.kubeconfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s%v\n%s", commands, err, out)
	}
}

// checkOutput holds what a README shows to what is printed today. With --update the
// README gets it.
func checkOutput(t *testing.T, command, printed string) {
	t.Helper()
	t.Logf("$ %s\n%s", command, printed)
	blocks, err := readmes.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(blocks, func(b readmes.Block) bool { return b.Kind == "output" && b.Command == command })
	if i < 0 {
		t.Fatalf("no README shows %s", command)
	}
	if *update {
		err = blocks[i].Write(root, printed)
	} else {
		err = blocks[i].Check(printed)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	show := features.New("the demo").WithLabel("part", "demo").
		Assess("prints what the README shows", step(func(t *testing.T) {
			var printed string
			for late, tries := true, 3; late && tries > 0; tries-- {
				var err error
				if printed, err = demo(t); err != nil {
					t.Fatalf("make demo: %v\n%s", err, printed)
				}
				alive, _, _ := strings.Cut(printed, `" deleted`)
				late = timed.MatchString(alive)
			}
			checkOutput(t, makeDemo, printed)
		}))
	noShow := features.New("the demo of a broken chapter").WithLabel("part", "demo").
		Assess("fails with a chapter that says nothing of a delete, and says so", step(func(t *testing.T) {
			flag := chapters.Overlay(t, root, t.TempDir(), "05-resync",
				"UpdateFunc: handleUpdate, DeleteFunc: handleDelete,", "UpdateFunc: handleUpdate,",
				"	handleDelete := func", "	_ = func")
			printed, err := demo(t, "GOFLAGS="+os.Getenv("GOFLAGS")+" "+flag)
			stderr := ""
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				stderr = string(exit.Stderr)
			}
			if stderr != "demo: 05-resync did not print the Delete of nginx\n" {
				t.Errorf("%v, stderr %q, printed:\n%s", err, stderr, printed)
			}
		}))
	testenv.TestInParallel(t, show.Feature(), noShow.Feature())
}

// demo runs make demo's program as a whole, on the suite's cluster.
func demo(t *testing.T, env ...string) (stdout string, err error) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "demo") // go run hides the exit code
	build := exec.Command("go", "build", "-o", binary, "./internal/demo")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = root
	cmd.Env = slices.Concat(cluster.Env, []string{"CLUSTER=current"}, env)
	out, err := cmd.Output()
	return string(out), err
}
