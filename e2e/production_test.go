package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
)

// 12 has two replicas, of which one acts. Whatever ends that one, while the time of many pods
// ends one after another: none of them is deleted early, none twice, and the other replica goes on
// after a time that the Lease's durations explain.

var (
	times   = flag.Int("times", 1, "how often each thing happens to the leader of 12")
	ttlPods = flag.Int("ttl-pods", 100, "how many pods' time ends meanwhile")
	ttlTime = flag.Duration("ttl-time", 30*time.Second, "from the end of the first one's to that of the last one's")
)

// The election's durations in 12, and how long a replica waits between two looks at the Lease:
// client-go's leaderelection.go, JitterFactor 1.2.
const (
	leaseDuration, retryPeriod = 15 * time.Second, 2 * time.Second
	look                       = retryPeriod * 22 / 10
	// From the last renewal until another replica has seen it, has waited, and looks again.
	unrenewed = look + leaseDuration + look
)

// An ending is what happens to the leader.
type ending struct {
	name    string
	longest time.Duration // until the other replica acts
	do      func(t *testing.T) (undo func())
}

// TestProduction runs the replicas as processes, on each cluster.
func TestProduction(t *testing.T) {
	twin := filepath.Join(t.TempDir(), "ttl")
	if cluster.Which == "kind" {
		// Not in parallel with the other tests: a compiler would slow them down, and they the replicas.
		jumps := jumping(t)
		for _, d := range deployments {
			d.binaries = map[string]string{"": d.compile(t), "-jumps": d.compile(t, jumps)}
		}
		run := strings.NewReplacer(" run ", " build -o "+twin+" ", " --namespace default", "") // of its README
		build := exec.CommandContext(t.Context(), "sh", "-ec", run.Replace("go -C controller-runtime run ./ttl --namespace default"))
		build.Dir = root
		command(t, build)
	} else {
		t.Parallel()
	}
	t.Run("processes", func(t *testing.T) {
		t.Parallel()
		(&processes{binary: filepath.Join(*built, "12-production"), lost: "the Lease is lost: "}).test(t)
	})
	if cluster.Which == "kind" {
		for _, d := range deployments {
			t.Run(filepath.Base(d.dir)+" deployed", func(t *testing.T) {
				t.Parallel()
				d.test(t)
			})
		}
		t.Run("controller-runtime", func(t *testing.T) {
			t.Parallel()
			(&processes{binary: twin, lost: "leader election lost"}).test(t)
		})
	}
}

// A ttlScene has pods whose time ends.
type ttlScene struct {
	scene
	mu   sync.Mutex
	gone map[string]time.Time // when the test saw that a pod was deleted
	more chan struct{}        // has a value after that
}

// followDeletes fills gone. It is an informer, because the API server ends a watch that cannot keep up,
// as it may end the record.
func (s *ttlScene) followDeletes(t *testing.T) {
	t.Helper()
	s.gone, s.more, s.record = map[string]time.Time{}, make(chan struct{}, 1), nil
	factory := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithNamespace(s.namespace))
	_, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		DeleteFunc: func(pod corev1informers.DeletedPod) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.gone[pod.GetObjectName().Name] = time.Now()
			select {
			case s.more <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(factory.Shutdown)
	t.Cleanup(cancel)
	factory.StartWithContext(ctx)
	if err := factory.WaitForCacheSyncWithContext(ctx).Err; err != nil {
		t.Fatal(err)
	}
}

// assess lets the leader end, as often as --times says.
func (s *ttlScene) assess(feature *features.FeatureBuilder, e ending) {
	feature.Assess(e.name, step(func(t *testing.T) {
		for i := range *times {
			gap := s.trial(t, e, fmt.Sprintf("%s-%d-", regexp.MustCompile(`\W+`).ReplaceAllString(strings.ToLower(e.name), "x"), i))
			t.Logf("%s: %d pods, none early, none twice, the longest gap is %s", e.name, *ttlPods, gap.Round(time.Millisecond))
		}
	}))
}

// trial lets the time of pods end one after another, and meanwhile e happen to the leader. It returns
// the longest time from a pod's end until its delete.
func (s *ttlScene) trial(t *testing.T, e ending, prefix string) (gap time.Duration) {
	t.Helper()
	later := s.createPod(t, restricted(withTTL(gated(prefix+"later"), "50m")))
	var mu sync.Mutex
	over := map[string]time.Time{}
	first := time.Now().Add(5*time.Second + time.Duration(*ttlPods)*20*time.Millisecond) // all exist by then
	inParallel(t, *ttlPods, func(i int) error {
		ttl := time.Until(first.Add(time.Duration(i) * *ttlTime / time.Duration(*ttlPods))).Round(time.Millisecond)
		pod, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(),
			restricted(withTTL(gated(fmt.Sprint(prefix, i)), ttl.String())), metav1.CreateOptions{})
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			over[pod.Name] = pod.CreationTimestamp.Add(ttl)
		}
		return err
	})
	s.awaitDeletes(t, slices.Sorted(maps.Keys(over)), 1)
	begin := time.Now()
	undo := e.do(t)
	s.awaitDeletes(t, slices.Sorted(maps.Keys(over)), *ttlPods)
	undo()

	s.mu.Lock()
	defer s.mu.Unlock()
	for name, end := range over {
		if s.gone[name].Before(end) {
			t.Errorf("%s was deleted %s early", name, end.Sub(s.gone[name]))
		}
		gap = max(gap, s.gone[name].Sub(end))
	}
	if at, ok := s.gone[later.Name]; ok {
		t.Errorf("%s has 50 minutes to live, and was deleted after %s", later.Name, at.Sub(later.CreationTimestamp.Time))
	}
	// The new leader has to catch up, and knows the API server's clock to a second.
	if most := e.longest + 10*time.Second + stalled(begin, time.Now()); gap > most {
		t.Errorf("%s: the longest gap is %s, want at most %s", e.name, gap, most)
	}
	s.once(t, slices.Sorted(maps.Keys(over)))
	return gap
}

// awaitDeletes waits until n of the pods are gone.
func (s *ttlScene) awaitDeletes(t *testing.T, names []string, n int) {
	t.Helper()
	for limit := time.After(3 * timeout); ; {
		s.mu.Lock()
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !s.gone[name].IsZero() })
		s.mu.Unlock()
		if len(names)-len(missing) >= n {
			return
		}
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("%d of %d pods are not deleted, such as %s", len(missing), len(names), missing[0])
		}
	}
}

// once: the API server carried out no second delete of a pod. Of the first, the log has no code if the
// client was killed before it got the answer.
func (s *ttlScene) once(t *testing.T, names []string) {
	t.Helper()
	requests, err := cluster.Audit(t.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		return // current: what the server was asked is not known
	}
	if err != nil {
		t.Fatal(err)
	}
	deletes := map[string]int{}
	for _, r := range requests {
		if r.Verb == "delete" && r.Namespace == s.namespace && r.Code == 200 {
			deletes[r.Name]++
		}
	}
	for _, name := range names {
		if deletes[name] > 1 {
			t.Errorf("%s was deleted %d times", name, deletes[name])
		}
	}
}

// restricted makes a pod such that the Pod Security Standard of that name permits it.
func restricted(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return pod
}

// processes are replicas that run here, each behind a proxy.
type processes struct {
	ttlScene
	binary, lost string // lost is what it says about the Lease when it exits
	replicas     []*outage
	t            *testing.T // replicas live longer than the step that starts them
}

func (p *processes) test(t *testing.T) {
	p.t = t
	feature := features.New(filepath.Base(p.binary)).WithLabel("chapter", "12").
		WithSetup("two replicas", p.setup(func(t *testing.T) {
			p.followDeletes(t)
			p.startReplica()
			p.startReplica()
		}))
	p.assess(feature, ending{"kill -9", unrenewed, p.kill})
	p.assess(feature, ending{"^C", look, p.interruptLeader})
	p.assess(feature, ending{"cut off", unrenewed, p.cutOff})
	testenv.Test(t, feature.Feature())
}

func (p *processes) startReplica() {
	o := &outage{scene: scene{client: p.client, kubeconfig: p.kubeconfig, namespace: p.namespace}}
	o.behindProxy(p.t)
	o.chapter = chapters.Start(p.t, p.binary, []string{"KUBECONFIG=" + o.kubeconfig}, "--namespace", p.namespace)
	o.awaitStep(p.t, logmatch.Like("the election", `.* msg="Attempting to acquire leader lease.*`), timeout)
	p.replicas = append(p.replicas, o)
}

// leader waits until a replica leads, and takes it out.
func (p *processes) leader(t *testing.T) (leader *outage) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, timeout, true, func(context.Context) (bool, error) {
		i := slices.IndexFunc(p.replicas, func(o *outage) bool {
			return strings.Contains(o.chapter.Stdout.String(), `msg="Successfully acquired lease"`)
		})
		if i >= 0 {
			leader = p.replicas[i]
			p.replicas = slices.Delete(p.replicas, i, i+1)
		}
		return i >= 0, nil
	})
	if err != nil {
		t.Fatal("no replica leads: ", err)
	}
	return leader
}

// kill kills the leader, and starts another replica, as a kubelet does.
func (p *processes) kill(t *testing.T) (undo func()) {
	leader := p.leader(t)
	leader.chapter.Signal(t, syscall.SIGKILL, timeout)
	p.startReplica()
	return func() {}
}

func (p *processes) interruptLeader(t *testing.T) (undo func()) {
	leader := p.leader(t)
	leader.interrupt(t)
	leader.story(t)
	p.startReplica()
	return func() {}
}

// cutOff keeps the leader from the API server. It has to end by itself.
func (p *processes) cutOff(t *testing.T) (undo func()) {
	leader := p.leader(t)
	leader.hang()
	return func() {
		t.Helper()
		if code := leader.chapter.End(t, timeout); code != 1 || !strings.HasPrefix(leader.chapter.Stderr.String(), p.lost) {
			t.Errorf("exit code %d, stderr:\n%s", code, &leader.chapter.Stderr)
		}
		leader.story(t)
		p.startReplica()
	}
}

// A deployment is a controller in pods, from its image and its manifests, as its README says.
type deployment struct {
	ttlScene
	dir, image                        string            // of its Dockerfile, and the image's name and version
	build, pack, load, apply, removes string            // the commands
	binaries                          map[string]string // the folder of each version's
}

var deployments = []*deployment{
	{
		dir: "12-production", image: "informers-ttl:v1",
		build:   "CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o 12-production/ ./12-production",
		pack:    "docker build --tag informers-ttl:v1 12-production",
		load:    "go tool kind load docker-image informers-ttl:v1",
		apply:   "kubectl apply -k 12-production/deploy",
		removes: "kubectl delete -k 12-production/deploy",
	},
	{
		dir: "controller-runtime/ttl", image: "informers-ttl:controller-runtime",
		build:   "CGO_ENABLED=0 go -C controller-runtime build -trimpath -ldflags='-s -w' -o ttl/ ./ttl",
		pack:    "docker build --tag informers-ttl:controller-runtime controller-runtime/ttl",
		load:    "go tool kind load docker-image informers-ttl:controller-runtime",
		apply:   "kubectl apply -k controller-runtime/ttl/deploy",
		removes: "kubectl delete -k controller-runtime/ttl/deploy",
	},
}

func (d *deployment) test(t *testing.T) {
	feature := features.New(filepath.Base(d.dir)+" deployed").WithLabel("chapter", "12").
		WithSetup("its image and its manifests", d.setup(d.deploy)).
		Assess("two replicas are ready, and nobody restarted them", step(func(t *testing.T) {
			d.kubectl(t, "rollout", "status", "deployment/informers-ttl", "--timeout=2m")
			if got := d.kubectl(t, "get", "pods", "-l", label, "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); got != "0 0" {
				t.Errorf("restarts: %q\n%s", got, d.kubectl(t, "describe", "pods", "-l", label))
			}
			logs := d.run(t, strings.Replace("kubectl logs --namespace informers-ttl --selector app.kubernetes.io/name=informers-ttl --prefix",
				"--namespace informers-ttl", "--namespace "+d.namespace, 1))
			if !regexp.MustCompile(`(?m)^\[pod/informers-ttl-.*msg="Attempting to acquire leader lease...`).MatchString(logs) {
				t.Errorf("no replica's log says that it wants the Lease:\n%s", logs)
			}
		})).
		Assess("an eviction would leave a replica", step(func(t *testing.T) {
			if got := d.kubectl(t, "get", "pdb/informers-ttl", "-o", "jsonpath={.status.disruptionsAllowed} of {.status.expectedPods}"); got != "1 of 2" {
				t.Errorf("the API server would evict %s replicas, want 1 of 2", got)
			}
		})).
		Assess("it says in an Event what it did", step(func(t *testing.T) {
			d.createPod(t, restricted(withTTL(gated("over"), "0s")))
			d.awaitDeletes(t, []string{"over"}, 1)
			d.awaitEvent(t, "over", "TimeOver", 0) // events.k8s.io has no count
		}))
	d.assess(feature, ending{"kill -9", unrenewed, d.kill})
	d.assess(feature, ending{"cut off", unrenewed, d.cutOff})
	// The replica that goes on may be an old one, which ends too.
	d.assess(feature, ending{"roll-out", 2 * look, func(t *testing.T) func() { return d.rollOut(t, "") }})
	d.assess(feature, ending{"the clock jumps", 2 * look, func(t *testing.T) func() { return d.rollOut(t, "-jumps") }})
	testenv.Test(t, feature.Feature())
}

const label = "app.kubernetes.io/name=informers-ttl"

// tag is the image's in the cluster of the test.
func (d *deployment) tag(version string) string { return d.image + "-" + cluster.Name + version }

// deploy applies the manifests, in the namespace of the test: the pods of other tests have a time, too.
// What all namespaces share is named after it.
func (d *deployment) deploy(t *testing.T) {
	t.Helper()
	d.followDeletes(t)
	d.packed(t, "")
	d.packed(t, "-jumps")
	dir := t.TempDir()
	for _, manifests := range []string{"12-production/deploy", "controller-runtime/ttl/deploy"} {
		if err := os.CopyFS(filepath.Join(dir, manifests), os.DirFS(filepath.Join(root, manifests))); err != nil {
			t.Fatal(err)
		}
	}
	name, tag, _ := strings.Cut(d.tag(""), ":")
	kustomization := fmt.Sprintf(`namespace: %[1]s
resources: [%[2]s/deploy]
images: [{name: %[3]s, newTag: %[4]s}]
patches:
- target: {kind: Deployment}
  patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--namespace=%[1]s"}]'
- target: {kind: ClusterRole.*}
  patch: '[{"op": "replace", "path": "/metadata/name", "value": "%[1]s"}]'
  options: {allowNameChange: true}
`, d.namespace, d.dir, name, tag)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t, strings.Replace(d.apply, d.dir+"/deploy", dir, 1))
	t.Cleanup(func() { d.run(t, strings.Replace(d.removes, d.dir+"/deploy", dir, 1)) })
}

// compile returns the folder of the binary.
func (d *deployment) compile(t *testing.T, flags ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	d.run(t, regexp.MustCompile(`-o \S+`).ReplaceAllString(d.build, strings.Join(append(flags, "-o", dir), " ")))
	return dir
}

// packed makes an image of a version, and loads it into the cluster.
func (d *deployment) packed(t *testing.T, version string) {
	t.Helper()
	dir, tag := d.binaries[version], d.tag(version)
	dockerfile, err := os.ReadFile(filepath.Join(root, d.dir, "Dockerfile"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Dockerfile"), dockerfile, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.run(t, strings.NewReplacer(d.image, tag, " "+d.dir, " "+dir).Replace(d.pack))
	t.Cleanup(func() { d.run(t, "docker rmi "+tag) })
	d.run(t, strings.Replace(d.load, d.image, tag+" --name "+cluster.Name, 1))
}

// run runs a command of a README.
func (d *deployment) run(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-ec", line)
	cmd.Dir, cmd.Env = root, append(slices.Clone(cluster.Env), "GOFLAGS=")
	return command(t, cmd)
}

// leader is the pod that holds the Lease.
func (d *deployment) leader(t *testing.T) *corev1.Pod {
	t.Helper()
	holder := d.kubectl(t, "get", "lease/informers-ttl", "-o", "jsonpath={.spec.holderIdentity}")
	name, _, _ := strings.Cut(holder, "_")
	pod, err := d.client.CoreV1().Pods(d.namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// kill kills the leader's process. The kubelet starts another one in the same pod.
func (d *deployment) kill(t *testing.T) (undo func()) {
	leader := d.leader(t)
	slice := "pod" + strings.ReplaceAll(string(leader.UID), "-", "_")
	d.node(t, `for p in $(pgrep -x `+filepath.Base(d.dir)+`); do if grep -q "`+slice+`" /proc/$p/cgroup; then kill -9 $p && exit; fi; done; exit 1`)
	return func() { t.Helper(); d.replace(t, leader) }
}

// replace deletes a replica that was restarted, and waits for the next. Killed again soon, it would
// wait longer and longer for its next start, and the other replica would be the only one.
func (d *deployment) replace(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	d.kubectl(t, "delete", "pod", pod.Name)
	d.kubectl(t, "rollout", "status", "deployment/informers-ttl", "--timeout=2m")
}

// cutOff drops what the leader sends to the API server. Nothing tells the leader.
func (d *deployment) cutOff(t *testing.T) (undo func()) {
	leader := d.leader(t)
	rule := " INPUT -s " + leader.Status.PodIP + " -p tcp --dport 6443 -j DROP"
	d.node(t, "iptables -I"+rule)
	return func() {
		t.Helper()
		d.node(t, "iptables -D"+rule)
		now, err := d.client.CoreV1().Pods(d.namespace).Get(t.Context(), leader.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		status := now.Status.ContainerStatuses[0]
		if ended := status.LastTerminationState.Terminated; ended == nil || ended.ExitCode != 1 {
			t.Errorf("a leader that was cut off has the state %+v, want one that ended by itself", status)
		}
		d.replace(t, leader)
	}
}

// rollOut replaces both replicas by another version of the image.
func (d *deployment) rollOut(t *testing.T, version string) (undo func()) {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"rolled-out":"%s"}},"spec":{"containers":[{"name":"informers-ttl","image":"%s"}]}}}}`,
		time.Now().Format(time.RFC3339Nano), d.tag(version))
	d.kubectl(t, "patch", "deployment/informers-ttl", "--patch", patch)
	return func() {
		t.Helper()
		d.kubectl(t, "rollout", "status", "deployment/informers-ttl", "--timeout=2m")
	}
}

// jumping returns a flag of go build, for a program whose clock jumps an hour ahead 20 s after its start.
// Linux has one clock for all containers, so the program gets another package time.
func jumping(t *testing.T) (flag string) {
	t.Helper()
	file := filepath.Join(strings.TrimSpace(command(t, exec.CommandContext(t.Context(), "go", "env", "GOROOT"))), "src", "time", "time.go")
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const line = "\tmono -= startNano\n" // of Now, whose sec is the wall clock
	if bytes.Count(source, []byte(line)) != 1 {
		t.Fatalf("%s does not have one line %q", file, line)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, "time.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err == nil {
		err = os.WriteFile(changed, bytes.Replace(source, []byte(line), []byte(line+"\tif mono > 20e9 {\n\t\tsec += 3600\n\t}\n"), 1), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "-overlay=" + filepath.Join(dir, "overlay.json")
}

func (d *deployment) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, exec.CommandContext(t.Context(), "kubectl", append([]string{"--kubeconfig", cluster.Kubeconfig, "--namespace", d.namespace}, args...)...))
}

// node runs a script on the node.
func (d *deployment) node(t *testing.T, script string) {
	t.Helper()
	command(t, exec.CommandContext(t.Context(), "docker", "exec", cluster.Name+"-control-plane", "sh", "-ec", script))
}

// command runs a command, and returns its stdout.
func command(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	return string(out)
}

// TestProductionRights: of the roles in 12's manifests each verb is needed. With all of them nothing
// goes wrong: deployed has them.
func TestProductionRights(t *testing.T) {
	t.Parallel()
	rules := manifestRules(t)
	missing := map[string]bool{}
	for i, rule := range rules {
		for _, verb := range rule.Verbs {
			right := verb + " " + rule.Resources[0]
			missing[right] = true
			t.Run(right, func(t *testing.T) {
				t.Parallel()
				without := slices.Clone(rules)
				if without[i].Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(v string) bool { return v == verb }); len(without[i].Verbs) == 0 {
					without = slices.Delete(without, i, i+1)
				}
				productionWithout(t, without, rule.Resources[0], verb)
			})
		}
	}
	want := []string{
		"create events", "create leases", "delete pods", "get leases", "list pods", "patch events", "update leases", "watch pods",
	}
	if got := slices.Sorted(maps.Keys(missing)); !slices.Equal(got, want) {
		t.Errorf("the roles have %q, want %q", got, want)
	}
}

// manifestRules are those of the roles in 12's manifests.
func manifestRules(t *testing.T) (rules []rbacv1.PolicyRule) {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "12-production", "deploy", "rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for manifests := yaml.NewYAMLToJSONDecoder(f); ; {
		var role rbacv1.Role // a ClusterRole has its fields, the other kinds have no rules
		if err := manifests.Decode(&role); errors.Is(err, io.EOF) {
			return rules
		} else if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, role.Rules...)
	}
}

func productionWithout(t *testing.T, rules []rbacv1.PolicyRule, resource, verb string) {
	s := &scene{}
	testenv.Test(t, features.New("12-production may not "+verb+" "+resource).WithLabel("chapter", "12").
		WithSetup("two pods", s.setup(func(t *testing.T) {
			s.as(t, "", s.tokenFor(t, "controller", rules))
			s.createPod(t, withTTL(gated("bad"), "soon"))
			s.createTTL(t, "over", "0s")
		})).
		Assess("it says what is missing", step(func(t *testing.T) {
			env := []string{"KUBECONFIG=" + s.kubeconfig}
			if verb == "list" { // of use where a watch does not bring the initial state
				env = append(env, "KUBE_FEATURE_WatchListClient=false")
			}
			s.chapter = chapters.Start(t, filepath.Join(*built, "12-production"), env, "--namespace", s.namespace)
			if verb == "patch" { // of use when the same Event comes again
				s.awaitEvent(t, "bad", "BadTTL", 1)
				s.change(t, "bad")
			}
			s.chapter.Await(t, &s.chapter.Stdout, "cannot "+verb+" resource ", timeout)
			s.story(t)
		})).
		Feature())
}
