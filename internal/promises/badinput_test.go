package promises

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"example.com/informers/internal/chapters"
)

// TestBadKubeconfig: before anything runs, one line on stderr and exit code 1.
func TestBadKubeconfig(t *testing.T) {
	dir := t.TempDir()
	good := refusing(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noCluster := `^no cluster configured: set KUBECONFIG or --kubeconfig to a kubeconfig that names one$`
	tests := []struct {
		name string
		env  string
		args []string
		want string
	}{
		{"none", "", nil, noCluster},
		{"missing, by flag", "", []string{"--kubeconfig", dir + "/none"}, `^load kubeconfig: stat .*/none: no such file or directory$`},
		{"missing, by KUBECONFIG", "KUBECONFIG=" + dir + "/none", nil, noCluster},
		{"empty", "", []string{"--kubeconfig", file("empty", "")}, noCluster},
		{"malformed", "", []string{"--kubeconfig", file("malformed", "clusters: [\n")}, `^load kubeconfig: error loading config file ".*/malformed": .*yaml: `},
		{"not a kubeconfig", "", []string{"--kubeconfig", file("prose", "apiVersion: v1\nkind: Pod\n")}, `^load kubeconfig: error loading config file ".*/prose": `},
		{"a folder", "", []string{"--kubeconfig", dir}, `^load kubeconfig: error loading config file ".*": read .*: is a directory$`},
		{"no such context", "", []string{"--kubeconfig", good, "--context", "other"}, `^load kubeconfig: context "other" does not exist$`},
	}
	for _, name := range all {
		for _, test := range tests {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				p := start(t, name, []string{test.env}, test.args...)
				code := p.End(t, 5*time.Second)
				record(t, p, code)
				if lines := p.Stderr.Lines(); code != 1 || len(lines) != 1 || !regexp.MustCompile(test.want).MatchString(lines[0]) {
					t.Errorf("exit code %d, stderr %q, want 1 and one line like %s", code, lines, test.want)
				}
				if p.Stdout.String() != "" {
					t.Errorf("stdout %q, want none", &p.Stdout)
				}
			})
		}
		t.Run(name+"/auth provider of kubectl", func(t *testing.T) {
			t.Parallel()
			p := start(t, name, nil, "--kubeconfig", oidc(t, good))
			if code := p.End(t, 5*time.Second); code != 1 || p.Stderr.String() != "Must provide idp-issuer-url\n" {
				t.Errorf("exit code %d, stderr %q, want 1 and what the provider oidc misses", code, &p.Stderr)
			}
		})
		t.Run(name+"/bad flag", func(t *testing.T) {
			t.Parallel()
			p := start(t, name, nil, "--resink", "30s")
			if code := p.End(t, 5*time.Second); code != 2 || !strings.HasPrefix(p.Stderr.String(), "flag provided but not defined: -resink\nUsage of ") {
				t.Errorf("exit code %d, stderr %q, want 2 and the usage", code, &p.Stderr)
			}
		})
	}
}

// TestBadServer: 01 gives up with the cause, 02 and 03 leave it to client-go and
// its log, 04 and later ones say it at once and give up at the deadline. Those that look
// resources up first need the server for that, and give up as 01 does.
func TestBadServer(t *testing.T) {
	tests := []struct {
		name   string
		server func(*testing.T) string
		cause  string // what the line must say
		logged bool   // whether client-go tells the watch error handler
		finds  bool   // whether resources can be looked up
	}{
		{"refuses", refusing, `dial tcp 127\.0\.0\.1:\d+: connect: connection refused`, false, false},
		{"silent", silent, `(context deadline exceeded|TLS handshake timeout|Client\.Timeout exceeded)`, false, false},
		{"not TLS", withoutTLS, `http: server gave HTTP response to HTTPS client`, true, false},
		{"unknown authority", unknownAuthority, `x509: certificate signed by unknown authority`, true, false},
		{"401", unauthorized, `(Unauthorized|the server has asked for the client to provide credentials)`, true, false},
		{"403", forbidden, `pods is forbidden: User \\?"jane\\?" cannot list resource \\?"pods\\?"`, true, true},
		{"undecodable", undecodable, `(list pods|failed to list \*v1\.Pod): quantities must match the regular expression`, true, true},
	}
	for _, test := range tests {
		cause := regexp.MustCompile(test.cause)
		run := func(name string, check func(t *testing.T, p *chapters.Program), args ...string) {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				check(t, start(t, name, nil, append([]string{"--kubeconfig", test.server(t)}, args...)...))
			})
		}

		run("01-clientset", func(t *testing.T, p *chapters.Program) {
			code := p.End(t, 15*time.Second)
			record(t, p, code)
			if lines := p.Stderr.Lines(); code != 1 || len(lines) != 1 || !cause.MatchString(lines[0]) {
				t.Errorf("exit code %d, stderr %q", code, lines)
			}
		})
		run("02-factory", func(t *testing.T, p *chapters.Program) {
			code := p.End(t, 10*time.Second)
			record(t, p, code)
			if want := "before start: 0 pods in the store\nright after start: 0 pods in the store\n"; code != 0 || p.Stdout.String() != want {
				t.Errorf("exit code %d, stdout %q", code, &p.Stdout)
			}
			checkLog(t, p, cause, test.logged)
			if test.name == "403" {
				checkOutput(t, "stderr", stderr02, p.Stderr.Lines()[0]+"\n")
			}
		})
		run("03-handlers", func(t *testing.T, p *chapters.Program) {
			if test.logged {
				p.Await(t, &p.Stderr, "Failed to watch", 5*time.Second)
			} else {
				time.Sleep(2 * time.Second) // that nothing is printed can't be waited for
			}
			took := p.Signal(t, syscall.SIGINT, 2*time.Second)
			record(t, p, p.ProcessState.ExitCode())
			if code := p.ProcessState.ExitCode(); code != 0 || p.Stdout.String() != "" {
				t.Errorf("exit code %d %s after ^C, stdout %q", code, took, &p.Stdout)
			}
			checkLog(t, p, cause, test.logged)
			if test.name == "unknown authority" {
				checkOutput(t, "stderr", stderr03, p.Stderr.Lines()[0]+"\n")
			}
		})
		for _, name := range all[3:] {
			finds := looksUp(t, name)
			if finds && test.name == "undecodable" {
				continue // what has no Go type fits
			}
			run(name, func(t *testing.T, p *chapters.Program) {
				code := p.End(t, 15*time.Second)
				record(t, p, code)
				lines := p.Stderr.Lines()
				last := lines[len(lines)-1]
				if finds && !test.finds {
					if code != 1 || len(lines) != 1 || !strings.HasPrefix(last, "discover resources: ") || !cause.MatchString(last) {
						t.Errorf("exit code %d, stderr %q", code, lines)
					}
					return
				}
				if code != 1 || !strings.HasPrefix(last, "cache is not synced: ") || !cause.MatchString(last) {
					t.Errorf("exit code %d, stderr %q", code, lines)
				}
				if name == "04-sync" && test.name == "refuses" {
					checkOutput(t, "stderr", stderr04, p.Stderr.Lines()[0]+"\n")
				}
				// One line for each error, as often as client-go tries: two or three times in 3 s. 10 prints it, and
				// the log of 12 is on stdout, with quotes in quotes.
				told := slices.DeleteFunc(slices.Concat(lines, p.Stdout.Lines()), func(line string) bool {
					line = strings.ReplaceAll(strings.ReplaceAll(line, `\"`, `"`), `msg="watch pods" err=`, " watch pods: ")
					return !strings.Contains(line, " watch pods: ") || !cause.MatchString(line)
				})
				if len(told) > 4 || (len(told) > 0) != test.logged {
					t.Errorf("stderr %q, want some lines with the cause before the deadline: %t", lines, test.logged)
				}
			}, "--sync-timeout", "3s")
		}
	}
}

// imports reports whether a chapter imports a package.
func imports(t *testing.T, chapter, pkg string) bool {
	return bytes.Contains(read(t, chapter, "main.go"), []byte(`"`+pkg+`"`))
}

// looksUp reports whether a chapter asks the server which resources there are.
func looksUp(t *testing.T, chapter string) bool {
	return imports(t, chapter, "k8s.io/client-go/discovery")
}

// TestVerbose: what client-go does and does not say by default, each chapter says with -v=4.
func TestVerbose(t *testing.T) {
	for _, name := range all[1:] {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, kubeconfig := serve(t, apiserver(3))
			p := start(t, name, nil, "--kubeconfig", kubeconfig, "-v=4")
			log := &p.Stderr
			if imports(t, name, "log/slog") { // client-go's log is in the program's
				log = &p.Stdout
			}
			p.Await(t, log, `"Caches populated"`, 10*time.Second)
			p.Signal(t, syscall.SIGINT, 5*time.Second)
		})
	}
}

// oidc copies a kubeconfig, with a user of the auth provider oidc that lacks its issuer: the
// error is the provider's, so the provider is there.
func oidc(t *testing.T, kubeconfig string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.AuthInfos["jane"] = &clientcmdapi.AuthInfo{AuthProvider: &clientcmdapi.AuthProviderConfig{Name: "oidc"}}
	config.Contexts[config.CurrentContext].AuthInfo = "jane"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkLog: client-go logs a cause that reaches its watch error handler, and says
// nothing of the others.
func checkLog(t *testing.T, p *chapters.Program, cause *regexp.Regexp, logged bool) {
	t.Helper()
	if log := p.Stderr.String(); logged && !cause.MatchString(log) || !logged && log != "" {
		t.Errorf("stderr %q, want the cause: %t", log, logged)
	}
}

// What the READMEs show of stderr: its first line.
const (
	stderr02 = "go run ./02-factory, without rights"
	stderr03 = "go run ./03-handlers, with an unknown authority"
	stderr04 = "go run ./04-sync --sync-timeout 3s, refused"
	stderr09 = "go run ./09-dynamic --resource=pods,widgets"
)

// TestBadFlags: what would make 05 run without a pause, or 07 not at all, is refused.
func TestBadFlags(t *testing.T) {
	_, kubeconfig := serve(t, apiserver(3))
	const periods = "--resync must be 0 or more and --run-every more than 0"
	const timeout = "--sync-timeout must be more than 0"
	const nothing = "no such resource; kubectl api-resources shows those there are"
	const faults = "--at must be 0 or more, --for more than 0, " +
		"and --fault one of 401, 403, 410, 429, 503, bookmark, cut, ended, silent"
	type test struct{ chapter, arg, want string }
	tests := []test{
		{"04-sync", "--sync-timeout=-1s", timeout},
		{"05-resync", "--resync=-1s", periods},
		{"05-resync", "--run-every=0", periods},
		{"05-resync", "--run-every=-1s", periods},
		{"06-lister", "--annotate=web", "--annotate needs --namespace"},
		{"07-workqueue", "--workers=0", "--workers must be 1 or more"},
		{"08-testing", "--workers=-1", "--workers must be 1 or more"},
		{"09-dynamic", "--resource=pods,widgets", `find "widgets": ` + nothing},
		{"09-dynamic", "--resource=", "nothing to watch: --resource or --group must name something"},
		{"09-dynamic", "--resource=Binding", `find "Binding": an informer needs list and watch, it has [create]`},
		{"10-faults", "--fault=404", faults},
		{"10-faults", "--fault=", faults},
		{"10-faults", "--at=-1s", faults},
		{"10-faults", "--for=0", faults},
		{"10-faults", "--for=-1s", faults},
		{"12-production", "--workers=-1", "--workers must be 1 or more"},
		{"12-production", "--http=8080", "--http: listen tcp: address 8080: missing port in address"},
		{"11-scale", "--store=half", "--store must be whole, trimmed, or metadata"},
		{"11-scale", "--store=metadata", "--store metadata needs --by: the node is not in a pod's metadata"},
		{"11-scale", "--encoding=cbor", "--encoding must be protobuf or json"},
		{"11-scale", "--namespace=a,a", "--namespace must name each namespace once"},
		{"11-scale", "--selector=,", `--selector: found ',', expected: !, identifier, or 'end of string'`},
		{"11-scale", "--field-selector=web", `--field-selector: invalid selector: 'web'; can't understand 'web'`},
	}
	for _, name := range all[3:] {
		tests = append(tests, test{name, "--sync-timeout=0", timeout})
	}
	for _, test := range tests {
		p := start(t, test.chapter, nil, "--kubeconfig", kubeconfig, test.arg)
		if code := p.End(t, 5*time.Second); code != 1 || p.Stderr.String() != test.want+"\n" || p.Stdout.String() != "" {
			t.Errorf("%s %s: exit code %d, stderr %q", test.chapter, test.arg, code, &p.Stderr)
		}
		if command := "go run ./" + test.chapter + " " + test.arg; command == stderr09 {
			checkOutput(t, "stderr", command, p.Stderr.String())
		}
	}
}

// record logs one row of the table of bad inputs: go test -v -run Bad ./internal/promises.
func record(t *testing.T, p *chapters.Program, code int) {
	t.Helper()
	lines := p.Stderr.Lines()
	last := "(nothing)"
	if len(lines) > 0 {
		last = lines[len(lines)-1]
	}
	t.Logf("| %s | %d | %.1f s | %s |", t.Name(), code, time.Since(p.Started).Seconds(), last)
}
