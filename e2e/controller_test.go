package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
)

// 07 and 08 are the same controller: it deletes pods whose annotation says that their time
// is over. What is asserted is the state that it leaves, and that it leaves it in time.

func TestWorkqueue(t *testing.T) {
	t.Parallel()
	controls(t, "07-workqueue")
}

func TestTesting(t *testing.T) {
	t.Parallel()
	controls(t, "08-testing")
}

func controls(t *testing.T, chapter string) {
	for name, story := range map[string]func(*testing.T, string){
		"life": ttlLife, "restart": ttlRestart, "changed": ttlChanged, "recreated": ttlRecreated,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, chapter)
		})
	}
}

const ttlAnnotation = "informers.example.com/ttl"

func withTTL(pod *corev1.Pod, ttl string) *corev1.Pod {
	pod.Annotations = map[string]string{ttlAnnotation: ttl}
	return pod
}

// createTTL makes a pod that nobody writes to, and returns when its time is over.
func (s *scene) createTTL(t *testing.T, name, ttl string) (over time.Time) {
	t.Helper()
	pod := s.createPod(t, withTTL(gated(name), ttl))
	d, err := time.ParseDuration(ttl)
	if err != nil {
		t.Fatal(err)
	}
	return pod.CreationTimestamp.Add(d)
}

// annotate changes the annotation; an empty ttl removes it.
func (s *scene) annotate(ctx context.Context, name, ttl string) error {
	value := `"` + ttl + `"`
	if ttl == "" {
		value = "null"
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, ttlAnnotation, value)
	_, err := s.client.CoreV1().Pods(s.namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (s *scene) annotated(t *testing.T, name, ttl string) {
	t.Helper()
	if err := s.annotate(t.Context(), name, ttl); err != nil {
		t.Fatal(err)
	}
}

// control starts a controller and waits until it is at work.
func (s *scene) control(t *testing.T, chapter string) {
	t.Helper()
	s.chapter = s.start(t, chapter)
	s.awaitLine(t, "cache is synced")
}

// sees waits until the controller has seen a pod that it is to delete later.
func (s *scene) sees(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		look := logmatch.Like("a look at "+name, regexp.QuoteMeta(s.key(name))+` is to be deleted in \S+`)
		s.awaitStep(t, look, timeout)
	}
}

// deletions are the times at which the controller said that it deleted a pod.
func (s *scene) deletions(name string) (at []time.Time) {
	for _, line := range s.chapter.Log() {
		if strings.HasPrefix(line.Text, s.key(name)+" is deleted: ") {
			at = append(at, line.At)
		}
	}
	return at
}

func (s *scene) awaitDeletion(t *testing.T, name string) {
	t.Helper()
	deletion := logmatch.Like("deletion of "+name, regexp.QuoteMeta(s.key(name))+` is deleted: its \S+ are over`)
	s.awaitStep(t, deletion, 2*timeout)
}

// inTime: deleted once, not before its time was over, and sooner than a failed delete is
// taken up again.
func (s *scene) inTime(t *testing.T, name string, over time.Time) {
	t.Helper()
	s.awaitGone(t, name)
	s.awaitDeletion(t, name)
	at := s.deletions(name)
	if len(at) != 1 {
		t.Fatalf("%s was deleted %d times, want once", name, len(at))
	}
	if late := at[0].Sub(over); late < 0 || late > 15*time.Second+stalled(over, at[0]) {
		t.Errorf("%s was deleted %s after its time was over", name, late)
	}
}

// alive holds the pods on the server to those named.
func (s *scene) alive(t *testing.T, names ...string) {
	t.Helper()
	pods, err := s.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, pod := range pods.Items {
		there = append(there, pod.Name)
	}
	slices.Sort(names)
	if !slices.Equal(there, names) {
		t.Errorf("the pods %q are there, want %q", there, names)
	}
}

// silent: nothing went wrong, so nothing is on stderr.
func (s *scene) silent(t *testing.T) {
	t.Helper()
	s.interrupt(t)
	s.story(t)
	if stderr := s.stderr(); len(stderr) > 0 {
		t.Errorf("stderr: %q", stderr)
	}
}

// stderr are the lines there, without that of the mutation detector.
func (s *scene) stderr() []string {
	return slices.DeleteFunc(s.chapter.Stderr.Lines(), func(line string) bool {
		return strings.Contains(line, "Mutation detector is enabled")
	})
}

// awaitEvent waits for an Event on a pod that was recorded count times or more.
func (s *scene) awaitEvent(t *testing.T, name, reason string, count int32) *corev1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	w, err := s.client.CoreV1().Events(s.namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.name": name, "reason": reason}.String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if event, ok := e.Object.(*corev1.Event); ok && event.Count >= count {
			return event
		}
	}
	t.Fatalf("no Event %s on %s, %d times", reason, name, count)
	return nil
}

// ttlLife: a pod that runs, one without the annotation, and one with a bad one.
func ttlLife(t *testing.T, chapter string) {
	s := &scene{}
	var over time.Time
	testenv.Test(t, features.New(chapter).WithLabel("chapter", chapter[:2]).
		WithSetup("the controller, and three pods", s.setup(func(t *testing.T) {
			s.as(t, "", s.tokenFor(t, "controller", readmeRules(t)))
			s.control(t, chapter)
			s.createPod(t, withTTL(gated("bad"), "soon"))
			s.createGated(t, "stays")
			nginx := s.createPod(t, withTTL(plain("nginx"), "10s"))
			over = nginx.CreationTimestamp.Add(10 * time.Second)
		})).
		Assess("the pod runs, and is deleted when its time is over", step(func(t *testing.T) {
			s.inTime(t, "nginx", over)
		})).
		Assess("as kubectl deletes: with its grace period", step(func(t *testing.T) {
			if !slices.ContainsFunc(s.record.of("nginx"), func(pod *corev1.Pod) bool {
				return pod.DeletionTimestamp != nil && *pod.DeletionGracePeriodSeconds > 0
			}) {
				t.Error("nginx was deleted without a grace period")
			}
		})).
		Assess("an Event tells its owner", step(func(t *testing.T) {
			e := s.awaitEvent(t, "nginx", "TimeOver", 1)
			if e.Type != corev1.EventTypeNormal || e.Message != "deleted 10s after its creation" || e.Count != 1 || e.Source.Component != "informers-ttl" {
				t.Errorf("Event %+v", e)
			}
		})).
		Assess("of the bad annotation, too, each time that somebody writes to the pod", step(func(t *testing.T) {
			s.awaitEvent(t, "bad", "BadTTL", 1)
			s.change(t, "bad")
			e := s.awaitEvent(t, "bad", "BadTTL", 2)
			want := `annotation informers.example.com/ttl is "soon", want a duration such as 90s`
			if e.Type != corev1.EventTypeWarning || e.Message != want {
				t.Errorf("Event %+v", e)
			}
		})).
		Assess("when it is mended, that pod goes; the one without stays", step(func(t *testing.T) {
			s.annotated(t, "bad", "0s")
			s.awaitGone(t, "bad")
			s.awaitDeletion(t, "bad")
			s.alive(t, "stays")
		})).
		Assess("nothing went wrong", step(s.silent)).
		Feature())
}

// ttlRestart: what it had in its queue is lost with the program, and comes again with the
// initial state.
func ttlRestart(t *testing.T, chapter string) {
	s := &scene{}
	testenv.Test(t, features.New(chapter+" restarted").WithLabel("chapter", chapter[:2]).
		WithSetup("the controller", s.setup(func(t *testing.T) { s.control(t, chapter) })).
		Assess("a restart in the middle", step(func(t *testing.T) {
			over := s.createTTL(t, "late", "10s")
			s.sees(t, "late")
			s.interrupt(t)
			s.createTTL(t, "meanwhile", "0s")
			s.control(t, chapter)
			s.inTime(t, "late", over)
			s.awaitGone(t, "meanwhile")
			s.alive(t)
			s.silent(t) // the program is this step's
		})).
		Feature())
}

// ttlChanged: what counts is the annotation that a pod has when its time is over.
func ttlChanged(t *testing.T, chapter string) {
	s := &scene{}
	testenv.Test(t, features.New(chapter+" and changes").WithLabel("chapter", chapter[:2]).
		WithSetup("the controller, and three pods that it has seen", s.setup(func(t *testing.T) {
			s.control(t, chapter)
			s.createTTL(t, "longer", "10s")
			s.createTTL(t, "removed", "10s")
			s.createTTL(t, "shorter", "1h")
			s.sees(t, "longer", "removed", "shorter")
		})).
		Assess("one gets more time, one less, one has no end any more", step(func(t *testing.T) {
			s.annotated(t, "longer", "1h")
			s.annotated(t, "removed", "")
			s.annotated(t, "shorter", "2s")
			s.awaitGone(t, "shorter")
			over := s.createTTL(t, "marker", "10s") // when it goes, the time of the others would have been over
			s.inTime(t, "marker", over)
			s.alive(t, "longer", "removed")
		})).
		Assess("nothing went wrong", step(s.silent)).
		Feature())
}

// ttlRecreated: another pod under the same name has its own time.
func ttlRecreated(t *testing.T, chapter string) {
	s := &scene{}
	testenv.Test(t, features.New(chapter+" and another pod of that name").WithLabel("chapter", chapter[:2]).
		WithSetup("the controller, and a pod that it has seen", s.setup(func(t *testing.T) {
			s.control(t, chapter)
			s.createTTL(t, "web", "10s")
			s.sees(t, "web")
		})).
		Assess("deleted, and created again with more time", step(func(t *testing.T) {
			s.delete(t, "web")
			s.createTTL(t, "web", "1h")
			over := s.createTTL(t, "marker", "10s")
			s.inTime(t, "marker", over)
			s.alive(t, "web")
			if at := s.deletions("web"); len(at) > 0 {
				t.Errorf("it says that it deleted web, at %s", at)
			}
		})).
		Assess("nothing went wrong", step(s.silent)).
		Feature())
}

// ttlCut: the API server cannot be reached when a pod's time is over, and another pod is
// deleted meanwhile. If it restarts, too, that delete is missed for good.
func ttlCut(t *testing.T, restart bool) {
	o := &outage{}
	name := "07-workqueue cut off"
	if restart {
		name += ", and a restarted API server"
	}
	testenv.Test(t, features.New(name).WithLabel("chapter", "07").WithLabel("fault", "cut").
		WithSetup("07 behind a proxy, and three pods that it has seen", step(func(t *testing.T) {
			o.open(t)
			o.record = watchPods(t, o.client, o.namespace)
			o.behindProxy(t)
			o.control(t, "07-workqueue")
			o.createGated(t, "stays")
			o.createTTL(t, "deleted", "10s")
			o.createTTL(t, "again", "10s")
			o.createTTL(t, "over", "10s")
			o.sees(t, "deleted", "again", "over")
		})).
		Assess("cut off for 20 s", step(func(t *testing.T) {
			end := time.After(20 * time.Second)
			o.cut()
			o.delete(t, "deleted")
			o.delete(t, "again")
			o.createTTL(t, "again", "1h")
			if restart {
				if err := o.cluster.RestartAPIServer(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			<-end
			o.alive(t, "again", "over", "stays")
		})).
		Assess("it says that the delete fails, and tries again", step(func(t *testing.T) {
			o.chapter.Await(t, &o.chapter.Stderr, o.key("over")+": delete: ", timeout)
			o.record = watchPods(t, o.client, o.namespace) // the API server ended the one before
			o.connect(t, o.server)
			o.awaitGone(t, "over")
			o.awaitDeletion(t, "over")
			o.createTTL(t, "after", "0s")
			o.awaitGone(t, "after")
			o.alive(t, "again", "stays")
			for _, name := range []string{"deleted", "again"} {
				if at := o.deletions(name); len(at) > 0 {
					t.Errorf("it says that it deleted %s, at %s", name, at)
				}
			}
			o.interrupt(t)
			o.story(t)
		})).
		Feature())
}

// ttlMany: 1,000 pods whose time ends in one second.
func ttlMany(t *testing.T) {
	const count = 1000
	o := &outage{}
	name := func(i int) string { return fmt.Sprintf("pod-%d", i) }
	var over time.Time
	testenv.Test(t, features.New("07-workqueue and many pods").WithLabel("chapter", "07").WithLabel("pace", "slow").
		WithSetup(fmt.Sprintf("07, and %d pods whose time ends in one second", count), step(func(t *testing.T) {
			o.open(t)
			o.control(t, "07-workqueue")
			begin, pods := time.Now(), make([]*corev1.Pod, count)
			inParallel(t, count, func(i int) (err error) {
				pods[i], err = o.client.CoreV1().Pods(o.namespace).Create(t.Context(), gated(name(i)), metav1.CreateOptions{})
				return err
			})
			// To annotate them takes about as long as it took to create them.
			over = time.Now().Add(5 * time.Second).Add(3 * time.Since(begin)).Truncate(time.Second)
			inParallel(t, count, func(i int) error {
				return o.annotate(t.Context(), name(i), over.Sub(pods[i].CreationTimestamp.Time).String())
			})
			if !time.Now().Before(over) {
				t.Fatal("it took longer to annotate them than they had to live")
			}
		})).
		Assess("all go, each once, and none before", step(func(t *testing.T) {
			// Not by a record: the API server ends a watch that does not keep up.
			for limit := time.After(2 * timeout); ; {
				changed := o.chapter.Changed()
				said := strings.Count(o.chapter.Stdout.String(), " is deleted: ")
				if said >= count {
					break
				}
				select {
				case <-changed:
				case <-limit:
					t.Fatalf("%d of %d pods were deleted", said, count)
				}
			}
			var last time.Time
			for i := range count {
				at := o.deletions(name(i))
				if len(at) != 1 || at[0].Before(over) {
					t.Fatalf("%s was deleted at %s, want once and not before %s", name(i), at, over)
				}
				if at[0].After(last) {
					last = at[0]
				}
			}
			t.Logf("the last one was deleted %s after its time was over", last.Sub(over).Round(time.Millisecond))
			o.alive(t)
			o.interrupt(t)
			if stderr := o.stderr(); len(stderr) > 0 {
				t.Errorf("stderr: %q", stderr)
			}
		})).
		Feature())
}

// readmeRules are those of the role in 07's README.
func readmeRules(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "07-workqueue", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatal("07's README has no role")
	}
	var role rbacv1.Role
	if err := yaml.Unmarshal(m[1], &role); err != nil {
		t.Fatal(err)
	}
	return role.Rules
}

// TestRights: of the role in 07's README each verb is needed. With all of them nothing goes
// wrong: ttlLife has them.
func TestRights(t *testing.T) {
	t.Parallel()
	missing := map[string]bool{}
	for _, rule := range readmeRules(t) {
		for _, verb := range rule.Verbs {
			right := verb + " " + rule.Resources[0]
			missing[right] = true
			t.Run(right, func(t *testing.T) {
				t.Parallel()
				ttlWithout(t, rule.Resources[0], verb)
			})
		}
	}
	want := []string{"create events", "delete pods", "list pods", "patch events", "watch pods"}
	if got := slices.Sorted(maps.Keys(missing)); !slices.Equal(got, want) {
		t.Errorf("the role has %q, want %q", got, want)
	}
}

func ttlWithout(t *testing.T, resource, verb string) {
	s := &scene{}
	testenv.Test(t, features.New("07-workqueue may not "+verb+" "+resource).WithLabel("chapter", "07").
		WithSetup("two pods", s.setup(func(t *testing.T) {
			rules := readmeRules(t)
			for i := range rules {
				if rules[i].Resources[0] == resource {
					rules[i].Verbs = slices.DeleteFunc(rules[i].Verbs, func(v string) bool { return v == verb })
				}
			}
			s.as(t, "", s.tokenFor(t, "controller", rules))
			s.createPod(t, withTTL(gated("bad"), "soon"))
			s.createTTL(t, "over", "0s")
		})).
		Assess("it says what is missing", step(func(t *testing.T) {
			env := []string{"KUBECONFIG=" + s.kubeconfig}
			if verb == "list" { // of use where a watch does not bring the initial state
				env = append(env, "KUBE_FEATURE_WatchListClient=false")
			}
			s.chapter = chapters.Start(t, filepath.Join(*built, "07-workqueue"), env,
				"--namespace", s.namespace, "--sync-timeout", "5s")
			if verb == "patch" { // of use when the same Event comes again
				s.awaitEvent(t, "bad", "BadTTL", 1)
				s.change(t, "bad")
			}
			s.chapter.Await(t, &s.chapter.Stderr, "cannot "+verb+" resource ", timeout)
			s.story(t)
		})).
		Feature())
}
