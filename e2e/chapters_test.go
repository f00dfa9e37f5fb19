package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/logmatch"
	"example.com/informers/internal/provider"
)

func TestClientset(t *testing.T) {
	t.Parallel()
	s := &scene{}
	list := func(t *testing.T, pods ...logmatch.Step) {
		t.Helper()
		s.chapter = s.start(t, "01-clientset")
		if code := s.chapter.End(t, timeout); code != 0 {
			t.Errorf("exit code %d, stderr:\n%s", code, &s.chapter.Stderr)
		}
		s.story(t)
		s.match(t, logmatch.Sequence{Steps: slices.Concat(
			[]logmatch.Step{
				logmatch.Like("the server's address", `context \S+, server https://\S+`),
				logmatch.Like("the server's version", `connected to Kubernetes v\d+\.\d+\.\d+\S*`),
			}, pods,
			[]logmatch.Step{logmatch.Like("the list's version", fmt.Sprintf(`%d pods at resourceVersion \d+`, len(pods)))})})
	}
	testenv.Test(t, features.New("01-clientset").WithLabel("chapter", "01").
		WithSetup("an empty namespace", s.setup(func(*testing.T) {})).
		Assess("a list made before the pod does not have it", step(func(t *testing.T) {
			list(t)
		})).
		Assess("a list made after the pod has it", step(func(t *testing.T) {
			s.createGated(t, "web")
			list(t, logmatch.Exactly(s.key("web")+" is Pending on node <none>"))
		})).
		Feature())
}

func TestFactory(t *testing.T) {
	t.Parallel()
	const count = 25
	s := &scene{}
	testenv.Test(t, features.New("02-factory").WithLabel("chapter", "02").
		WithSetup(fmt.Sprintf("%d pods", count), s.setup(func(t *testing.T) {
			for i := range count {
				s.createGated(t, fmt.Sprintf("pod-%d", i))
			}
			s.chapter = s.start(t, "02-factory")
		})).
		Assess("the store grows to the server's count", step(func(t *testing.T) {
			if code := s.chapter.End(t, timeout); code != 0 {
				t.Errorf("exit code %d, stderr:\n%s", code, &s.chapter.Stderr)
			}
			s.story(t)
			s.match(t, logmatch.Sequence{Steps: []logmatch.Step{
				logmatch.Exactly("before start: 0 pods in the store"),
				logmatch.Like("right after start: as far as it got", `right after start: \d+ pods in the store`),
				logmatch.Like("then: more", `then: \d+ pods in the store`).AnyNumber(),
			}})
			log := s.chapter.Log()
			if last, want := log[len(log)-1].Text, fmt.Sprintf(": %d pods in the store", count); !strings.HasSuffix(last, want) {
				t.Errorf("the last line is %q, want one that ends in %q", last, want)
			}
		})).
		Assess("all that reading costs one request, the watch", s.requests()).
		Feature())
}

// requests asserts by the API server's audit log that the chapter made one request, a
// watch that began with the initial state, and others if their verbs are named.
func (s *scene) requests(others ...string) features.Func {
	return step(func(t *testing.T) {
		all, err := cluster.Audit(t.Context())
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip("somebody else's cluster shows no audit log")
		}
		if err != nil {
			t.Fatal(err)
		}
		requests := slices.DeleteFunc(all, func(r provider.Request) bool {
			return r.Namespace != s.namespace || !strings.HasPrefix(r.UserAgent, filepath.Base(s.chapter.Path)+"/")
		})
		for _, r := range requests {
			t.Logf("%s %s", r.Verb, r.URI)
		}
		slices.SortFunc(requests, func(a, b provider.Request) int { return strings.Compare(b.Verb, a.Verb) }) // watch, update
		var verbs []string
		for _, r := range requests {
			verbs = append(verbs, r.Verb)
		}
		if !slices.Equal(verbs, append([]string{"watch"}, others...)) || !strings.Contains(requests[0].URI, "sendInitialEvents=true") {
			t.Errorf("requests: %+v, want one watch with sendInitialEvents, and %q", requests, others)
		}
	})
}

func TestHandlers(t *testing.T) {
	t.Parallel()
	s := &scene{}
	testenv.Test(t, features.New("03-handlers").WithLabel("chapter", "03").
		WithSetup("a pod web, and the chapter", s.setup(func(t *testing.T) {
			s.createGated(t, "web")
			s.chapter = s.start(t, "03-handlers")
			s.awaitAdd(t, "web", 10*time.Second)
		})).
		Assess("nginx becomes ready", step(s.nginxLives)).
		Assess("nginx is deleted", step(s.nginxDies)).
		Assess("^C ends it", step(s.interrupt)).
		Assess("Add of what was there; Add, Updates, Delete of nginx", step(func(t *testing.T) {
			s.story(t)
			s.match(t, logmatch.Sequence{
				Pass:  s.resyncs(), // 03 says nothing of resyncs, they are Updates
				Steps: slices.Concat([]logmatch.Step{added(s.key("web"), "")}, s.nginx("")),
			})
		})).
		Assess("each write of nginx is an Update", step(s.updatesAreWrites)).
		Feature())
}

// nginx is the life of nginx with the pods that mark its turns.
func (s *scene) nginx(detail string) []logmatch.Step {
	nginx := s.key("nginx")
	return []logmatch.Step{
		added(nginx, detail),
		updated(nginx, detail).OneOrMore(), // among them the node and Ready, see updatesAreWrites
		added(s.key("ready"), detail),
		updated(nginx, detail).OneOrMore(),
		deleted(nginx, detail),
		added(s.key("gone"), detail),
	}
}

// resyncs are Updates of pods that nobody writes to.
func (s *scene) resyncs() []logmatch.Step {
	return []logmatch.Step{updated(s.key("web"), ""), updated(s.key("ready"), ""), updated(s.key("gone"), "")}
}

// updatesAreWrites: the chapter's watch and the suite's get the same events, so
// there are as many Updates of nginx as writes in the record; a resync may add some.
func (s *scene) updatesAreWrites(t *testing.T) {
	t.Helper()
	lines, writes, node, ready, deletion := 0, 0, false, false, false
	for _, line := range s.chapter.Log() {
		if strings.HasPrefix(line.Text, "handleUpdate") && strings.Contains(line.Text, s.key("nginx")+")") {
			lines++
		}
	}
	events, _ := s.record.all()
	for _, e := range events {
		if pod := e.Object.(*corev1.Pod); pod.Name == "nginx" && e.Type == watch.Modified {
			writes++
			node = node || pod.Spec.NodeName != ""
			ready = ready || conditions(pod)[corev1.PodReady]
			deletion = deletion || pod.DeletionTimestamp != nil
		}
	}
	if lines < writes || !node || !ready || !deletion {
		t.Errorf("%d Updates of nginx, and %d writes by the record (with a node: %t, ready: %t, with a deletionTimestamp: %t)",
			lines, writes, node, ready, deletion)
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	s := &scene{}
	testenv.Test(t, features.New("04-sync").WithLabel("chapter", "04").
		WithSetup("a pod web, and the chapter", s.setup(func(t *testing.T) {
			s.createGated(t, "web")
			s.chapter = s.start(t, "04-sync")
			s.await(t, logmatch.Sequence{Steps: []logmatch.Step{
				logmatch.AnyOrder(logmatch.Exactly("store is synced"), added(s.key("web"), "")),
				logmatch.Exactly("handler is synced"),
				logmatch.Exactly("cache is synced"),
			}})
		})).
		Assess("nginx becomes ready", step(s.nginxLives)).
		Assess("nginx is deleted", step(s.nginxDies)).
		Assess("^C ends it", step(s.interrupt)).
		Assess("synced after the Add of what was there; then Add, Updates, Delete of nginx", step(func(t *testing.T) {
			s.story(t)
			s.match(t, logmatch.Sequence{
				Pass: s.resyncs(),
				Steps: slices.Concat([]logmatch.Step{
					logmatch.AnyOrder(logmatch.Exactly("store is synced"), added(s.key("web"), "")),
					logmatch.Exactly("handler is synced"),
					logmatch.Exactly("cache is synced"),
				}, s.nginx("")),
			})
		})).
		Assess("each write of nginx is an Update", step(s.updatesAreWrites)).
		Feature())
}

func TestSyncOfMany(t *testing.T) {
	t.Parallel()
	const count, times = 500, 20
	s := &scene{}
	testenv.Test(t, features.New("04-sync with many pods").WithLabel("chapter", "04").
		WithSetup(fmt.Sprintf("%d pods", count), s.setup(func(t *testing.T) {
			inParallel(t, count, func(i int) error {
				_, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), gated(fmt.Sprintf("pod-%d", i)), metav1.CreateOptions{})
				return err
			})
		})).
		Assess(fmt.Sprintf("all Adds come before the handler is synced, %d times of %d", times, times), step(func(t *testing.T) {
			for range times {
				s.chapter = s.start(t, "04-sync")
				s.awaitLine(t, "cache is synced")
				s.interrupt(t)
				s.match(t, logmatch.Sequence{
					Pass: []logmatch.Step{logmatch.Exactly("store is synced")},
					Steps: []logmatch.Step{
						logmatch.Like("Add of a pod", `handleAdd .*`).OneOrMore(),
						logmatch.Exactly("handler is synced"),
						logmatch.Exactly("cache is synced"),
					},
				})
				added := map[string]int{}
				for _, line := range s.chapter.Log() {
					if strings.HasPrefix(line.Text, "handleAdd") {
						added[line.Text]++
					}
				}
				if len(added) != count || slices.Max(slices.Collect(maps.Values(added))) != 1 {
					t.Errorf("what it printed does not fit: Adds of %d pods, want one each of %d", len(added), count)
				}
				if t.Failed() {
					return
				}
			}
		})).
		Feature())
}

// TestSyncFails: 04 against servers that give it nothing.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	const deadline = 3 * time.Second
	s := &scene{}
	// gaveUp: one line with the true cause, exit code 1, soon after the deadline.
	gaveUp := func(t *testing.T, cause string) {
		t.Helper()
		if code := s.chapter.End(t, timeout); code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		slack := 5*time.Second + stalled(s.chapter.Started, time.Now())
		if took := time.Since(s.chapter.Started); took < deadline || took > deadline+slack {
			t.Errorf("ended after %s, want it soon after the deadline of %s", took, deadline)
		}
		lines := s.chapter.Stderr.Lines()
		t.Log(strings.Join(lines, "\n"))
		want := regexp.MustCompile(`^cache is not synced: list pods: ` + cause + `$`)
		if len(lines) == 0 || !want.MatchString(lines[len(lines)-1]) {
			t.Errorf("stderr:\n%swant a last line like %s", &s.chapter.Stderr, want)
		}
		s.match(t, logmatch.Sequence{}) // nothing on stdout
	}
	testenv.Test(t, features.New("04-sync without a sync").WithLabel("chapter", "04").
		WithSetup("a pod web", s.setup(func(t *testing.T) { s.createGated(t, "web") })).
		Assess("a server that refuses", step(func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			if err := l.Close(); err != nil { // nobody listens there now
				t.Fatal(err)
			}
			s.as(t, "https://"+address, "")
			s.chapter = s.start(t, "04-sync", "--sync-timeout", deadline.String())
			gaveUp(t, `Get "https://\S+": dial tcp \S+: connect: connection refused`)
		})).
		Assess("a server that forbids list and watch", step(func(t *testing.T) {
			s.as(t, "", s.token(t, "nobody"))
			s.chapter = s.start(t, "04-sync", "--sync-timeout", deadline.String())
			gaveUp(t, `pods is forbidden: User "system:serviceaccount:\S+:nobody" cannot list resource "pods" .*`)
		})).
		// client-go 0.37 falls back to a list (reflector.go, func list), so this one is synced.
		Assess("a server that forbids the watch alone", step(func(t *testing.T) {
			s.as(t, "", s.token(t, "lister", "list"))
			s.chapter = s.start(t, "04-sync", "--sync-timeout", deadline.String())
			s.await(t, logmatch.Sequence{Steps: []logmatch.Step{
				logmatch.AnyOrder(logmatch.Exactly("store is synced"), added(s.key("web"), "")),
				logmatch.Exactly("handler is synced"),
				logmatch.Exactly("cache is synced"),
			}})
			s.chapter.Await(t, &s.chapter.Stderr, `cannot watch resource "pods"`, timeout)
			s.interrupt(t)
		})).
		Feature())
}

// as makes chapters connect with the namespace of the scene: to another server, or with a token, unless it is empty.
func (s *scene) as(t *testing.T, server, token string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	current := config.Contexts[config.CurrentContext]
	current.Namespace = s.namespace
	if server != "" {
		config.Clusters[current.Cluster].Server = server
	}
	if token != "" {
		config.AuthInfos[current.AuthInfo] = &clientcmdapi.AuthInfo{Token: token}
	}
	s.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, s.kubeconfig); err != nil {
		t.Fatal(err)
	}
}

// token makes a service account that may do verbs on pods, and returns a token for it.
func (s *scene) token(t *testing.T, name string, verbs ...string) string {
	t.Helper()
	var rules []rbacv1.PolicyRule
	if len(verbs) > 0 {
		rules = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: verbs}}
	}
	return s.tokenFor(t, name, rules)
}

// tokenFor makes a service account with a role, and returns a token for it.
func (s *scene) tokenFor(t *testing.T, name string, rules []rbacv1.PolicyRule) string {
	t.Helper()
	ctx, meta := t.Context(), metav1.ObjectMeta{Name: name}
	accounts, rbac := s.client.CoreV1().ServiceAccounts(s.namespace), s.client.RbacV1()
	_, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	if err == nil && len(rules) > 0 {
		_, err = rbac.Roles(s.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	}
	if err == nil && len(rules) > 0 {
		_, err = rbac.RoleBindings(s.namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: s.namespace}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	request, err := accounts.CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

func TestResync(t *testing.T) {
	t.Parallel()
	resync(t, features.New("05-resync").WithLabel("pace", "fast"), 4*time.Second, time.Second,
		"--resync", "4s", "--run-every", "1s")
}

func TestResyncDefaults(t *testing.T) {
	t.Parallel()
	resync(t, features.New("05-resync at its default periods").WithLabel("pace", "slow"), 30*time.Second, 10*time.Second)
}

// resync runs 05 through the life of nginx and two resyncs.
func resync(t *testing.T, feature *features.FeatureBuilder, period, every time.Duration, flags ...string) {
	s := &scene{}
	testenv.Test(t, feature.WithLabel("chapter", "05").
		WithSetup("a pod web, and the chapter", s.setup(func(t *testing.T) {
			s.createGated(t, "web")
			s.chapter = s.start(t, "05-resync", flags...)
			s.await(t, logmatch.Sequence{Steps: synced(s)})
		})).
		Assess("nginx becomes ready", step(s.nginxLives)).
		Assess("nginx is deleted", step(s.nginxDies)).
		Assess("two more resyncs of all pods", step(func(t *testing.T) {
			// The chapter's own runs are the clock.
			enough := count(s, "run") + int(2*period/every) + 2
			resyncs := len(rounds(s.chapter.Log())) + 2
			for len(rounds(s.chapter.Log())) < resyncs {
				changed := s.chapter.Changed()
				if count(s, "run") > enough || s.chapter.Ended() {
					t.Fatalf("no second resync since nginx is gone, and %d runs; want one every %s", count(s, "run"), period)
				}
				<-changed
			}
		})).
		Assess("^C ends it", step(s.interrupt)).
		Assess("Add, Updates, Delete of nginx, with their evidence", step(func(t *testing.T) {
			s.story(t)
			s.match(t, logmatch.Sequence{
				Pass: []logmatch.Step{logmatch.Exactly("run"), logmatch.Like("a resync", `.*: resync, resourceVersion \d+`)},
				Steps: slices.Concat(synced(s), []logmatch.Step{
					added(s.key("nginx"), ": new, .*"),
					updated(s.key("nginx"), `: \d+ → \d+.*`).AnyNumber(),
					updated(s.key("nginx"), `: .*, node .*`),
					updated(s.key("nginx"), `: \d+ → \d+.*`).AnyNumber(),
					updated(s.key("nginx"), `: .*, Ready.*`),
					updated(s.key("nginx"), `: \d+ → \d+.*`).AnyNumber(),
					added(s.key("ready"), ": new, phase Pending, node <none>"),
					updated(s.key("nginx"), `: \d+ → \d+, deletion`),
					updated(s.key("nginx"), `: \d+ → \d+.*`).AnyNumber(),
					deleted(s.key("nginx"), ": tombstone=false"),
					added(s.key("gone"), ": new, phase Pending, node <none>"),
				}),
			})
		})).
		Assess("each Update's evidence is what the server has", step(s.evidence)).
		Assess("a run about every "+every.String(), step(func(t *testing.T) {
			var last time.Time
			for _, line := range s.chapter.Log() {
				if line.Text != "run" {
					continue
				}
				if !last.IsZero() {
					about(t, "a run since the one before", last, line.At, every)
				}
				last = line.At
			}
		})).
		Assess("a resync about every "+period.String()+" of every pod in the store", step(func(t *testing.T) {
			s.resyncsAreWhole(t, period)
		})).
		Assess("and all that cost one request, the watch", s.requests()).
		Feature())
}

func count(s *scene, text string) (n int) {
	for _, line := range s.chapter.Log() {
		if line.Text == text {
			n++
		}
	}
	return n
}

func synced(s *scene) []logmatch.Step {
	return []logmatch.Step{
		logmatch.AnyOrder(logmatch.Exactly("store is synced"), added(s.key("web"), ": initial, phase Pending, node <none>")),
		logmatch.Exactly("handler is synced"),
		logmatch.Exactly("cache is synced"),
	}
}

// evidence: an Update says from which version to which the pod went and what is
// true since; the record knows all versions.
func (s *scene) evidence(t *testing.T) {
	versions := s.record.of("nginx")
	writes := slices.DeleteFunc(events(s.chapter.Log()), func(e event) bool {
		return e.key != s.key("nginx") || e.why != "write"
	})
	if len(writes) != len(versions)-2 { // the first is the Add, the last the Delete
		t.Fatalf("%d writes printed, and %d versions in the record", len(writes), len(versions))
	}
	for i, e := range writes {
		old, pod := versions[i], versions[i+1]
		var facts []string
		if pod.Status.Phase != old.Status.Phase {
			facts = append(facts, "phase "+string(pod.Status.Phase))
		}
		if pod.Spec.NodeName != old.Spec.NodeName {
			facts = append(facts, "node "+pod.Spec.NodeName)
		}
		if conditions(pod)[corev1.PodReady] && !conditions(old)[corev1.PodReady] {
			facts = append(facts, "Ready")
		}
		if pod.DeletionTimestamp != nil && old.DeletionTimestamp == nil {
			facts = append(facts, "deletion")
		}
		said := strings.Split(strings.TrimPrefix(e.facts, ", "), ", ")
		if e.facts == "" {
			said = nil
		}
		slices.Sort(facts)
		slices.Sort(said)
		if e.old != old.ResourceVersion || e.now != pod.ResourceVersion || !slices.Equal(said, facts) {
			t.Errorf("Update %d of nginx is %s → %s %q, and by the record %s → %s %q",
				i+1, e.old, e.now, said, old.ResourceVersion, pod.ResourceVersion, facts)
		}
	}
}

// A round is one resync: Updates that come at once.
type round struct {
	at       time.Time
	resynced []string // key and resourceVersion of each pod
	store    []string // the same of the store, by the lines before
}

// rounds are the resyncs of a log. One that is still being printed does not count yet.
func rounds(log []logmatch.Line) (all []round) {
	store := map[string]string{}
	for _, line := range log {
		e := events([]logmatch.Line{line})
		if len(e) == 0 {
			continue
		}
		switch pod := e[0]; {
		case pod.kind == "Delete":
			delete(store, pod.key)
		case pod.why == "resync":
			last := len(all) - 1
			if last < 0 || line.At.Sub(all[last].at) > 500*time.Millisecond {
				all = append(all, round{at: line.At})
				last++
				for key, version := range store {
					all[last].store = append(all[last].store, key+" "+version)
				}
			}
			all[last].resynced = append(all[last].resynced, pod.key+" "+pod.now)
		default:
			store[pod.key] = pod.now
		}
	}
	if last := len(all) - 1; last >= 0 && len(all[last].resynced) < len(all[last].store) {
		all = all[:last]
	}
	return all
}

func (s *scene) resyncsAreWhole(t *testing.T, period time.Duration) {
	t.Helper()
	// An Add does not print a version, the record has it.
	versions := map[string]string{}
	for _, name := range []string{"web", "nginx", "ready", "gone"} {
		versions[s.key(name)+" "] = s.key(name) + " " + s.record.of(name)[0].ResourceVersion
	}
	at := time.Time{}
	for _, line := range s.chapter.Log() {
		if line.Text == "store is synced" {
			at = line.At
		}
	}
	for i, r := range rounds(s.chapter.Log()) {
		for j, pod := range r.store {
			if version, ok := versions[pod]; ok {
				r.store[j] = version
			}
		}
		slices.Sort(r.store)
		slices.Sort(r.resynced)
		if !slices.Equal(r.store, r.resynced) {
			t.Errorf("resync %d is of %q, and the store has %q", i+1, r.resynced, r.store)
		}
		about(t, fmt.Sprintf("resync %d", i+1), at, r.at, period)
		at = r.at
	}
}

// about: a period drifts, but not by much on a machine that is not stalled.
func about(t *testing.T, what string, from, to time.Time, want time.Duration) {
	t.Helper()
	got, slack := to.Sub(from).Round(time.Millisecond), stalled(from, to)
	if got < want*8/10-slack || got > want+3*time.Second+slack {
		t.Errorf("%s came after %s, want about %s (the machine stood still for %s)", what, got, want, slack.Round(time.Millisecond))
	}
}
