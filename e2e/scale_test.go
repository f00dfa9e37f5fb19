package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
)

const (
	manyPods    = 300
	noWatchList = "KUBE_FEATURE_WatchListClient=false"
)

// TestScale: 11 gives the same answer in each way that it can be told to keep and to get pods, and
// the ways that cost less do.
func TestScale(t *testing.T) {
	t.Parallel()
	s := &costs{}
	testenv.Test(t, features.New("11-scale").WithLabel("chapter", "11").
		WithSetup("300 large pods, some in another namespace, and one that runs", s.setup(func(t *testing.T) {
			s.create(t, "web")
			s.big, s.other = s.makeNamespace(t), s.makeNamespace(t)
			var group errgroup.Group
			group.SetLimit(8)
			for i := range manyPods {
				group.Go(func() error { return s.createLarge(t.Context(), s.big, i) })
			}
			for i := range 4 {
				group.Go(func() error { return s.createLarge(t.Context(), s.other, i) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			s.awaitReady(t, "web")
		})).
		Assess("the same answer in every way, for less", step(func(t *testing.T) {
			answer := []string{"pods with app=web-0: 100", "pods with app=web-1: 100", "pods with app=web-2: 100"}
			for _, env := range []string{"", noWatchList} {
				of := map[string]cost{}
				for name, args := range map[string][]string{
					"whole":    nil,
					"JSON":     {"--encoding", "json"},
					"trimmed":  {"--store", "trimmed"},
					"metadata": {"--store", "metadata"},
					"handlers": {"--handlers", "10"},
				} {
					of[name] = s.ask(t, env, answer, append([]string{"--namespace", s.big, "--by", "app"}, args...)...)
					if of[name]["pods in the store"] != manyPods {
						t.Errorf("%s has %d pods in the store", name, of[name]["pods in the store"])
					}
					if requests := of[name]["requests"]; requests != 1 && (env == "" || requests != 2) {
						t.Errorf("%s, %q: %d requests", name, env, requests)
					}
				}
				whole := of["whole"]
				for _, name := range []string{"trimmed", "metadata"} {
					if heap := of[name]["heap"]; heap*2 >= whole["heap"] {
						t.Errorf("%q: the heap has %d KiB with a store that is %s, %d KiB with whole pods, want less than half", env, heap, name, whole["heap"])
					}
				}
				if heap := of["handlers"]["heap"]; heap*2 >= whole["heap"]*3 {
					t.Errorf("%q: the heap has %d KiB with ten handlers, %d KiB with none, but they share one store", env, heap, whole["heap"])
				}
				if received := of["metadata"]["received"]; received >= whole["received"] {
					t.Errorf("%q: received %d KiB of metadata, %d KiB of whole pods", env, received, whole["received"])
				}
				if received := of["JSON"]["received"]; received <= whole["received"] {
					t.Errorf("%q: received %d KiB of JSON, %d KiB of protobuf", env, received, whole["received"])
				}
			}
		})).
		Assess("the node, of a pod that is trimmed too", step(func(t *testing.T) {
			web, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, keep := range []string{"whole", "trimmed"} {
				s.ask(t, "", []string{"pods on node " + web.Spec.NodeName + ": 1"}, "--namespace", s.namespace, "--store", keep)
			}
		})).
		Assess("only the pods of the namespaces", step(func(t *testing.T) {
			got := s.ask(t, "", []string{"pods on node <none>: 304"}, "--namespace", s.big+","+s.other)
			if got["requests"] != 2 {
				t.Errorf("%d requests for two namespaces", got["requests"])
			}
			s.ask(t, "", []string{"pods with app=web-0: 2", "pods with app=web-1: 1", "pods with app=web-2: 1"},
				"--namespace", s.other, "--by", "app", "--store", "metadata")
		})).
		Assess("only the pods that a selector selects", step(func(t *testing.T) {
			for _, env := range []string{"", noWatchList} {
				s.ask(t, env, []string{"pods with app=web-1: 100"}, "--namespace", s.big, "--by", "app", "--selector", "app=web-1")
				s.ask(t, env, []string{"pods with app=web-1: 1"}, "--namespace", s.big, "--by", "app", "--store", "metadata",
					"--field-selector", "metadata.name=pod-7")
			}
		})).
		Assess("what the README breaks: a transform without the node, and bytes after decompression", step(func(t *testing.T) {
			before := s.ask(t, noWatchList, []string{"pods on node <none>: 300"}, "--namespace", s.big)
			bin := t.TempDir()
			flag := chapters.Overlay(t, root, t.TempDir(), "11-scale",
				"			Spec:       corev1.PodSpec{NodeName: o.Spec.NodeName},\n", "", "config.DisableCompression = true", "")
			if err := chapters.Build(root, bin, []string{"11-scale"}, flag); err != nil {
				t.Fatal(err)
			}
			s.binary = filepath.Join(bin, "11-scale")
			s.ask(t, "", []string{"pods on node <none>: 1"}, "--namespace", s.namespace, "--store", "trimmed")
			after := s.ask(t, noWatchList, []string{"pods on node <none>: 300"}, "--namespace", s.big)
			if a, b := before["received"], after["received"]; a*10 < b*9 || b*10 < a*9 {
				t.Errorf("received %d KiB, and %d KiB if the transport may decompress", a, b)
			}
		})).
		Assess("a field that pods cannot be selected by is refused", step(func(t *testing.T) {
			s.chapter = s.start(t, "11-scale", "--field-selector", "spec.hostname=web", "--sync-timeout", "3s")
			code, last := s.chapter.End(t, timeout), ""
			if lines := s.stderr(); len(lines) > 0 {
				last = lines[len(lines)-1]
			}
			if code != 1 || !strings.HasPrefix(last, "cache is not synced: list pods: ") || !strings.Contains(last, "field label not supported") {
				t.Errorf("exit code %d, stderr:\n%s", code, &s.chapter.Stderr)
			}
		})).
		Feature())
}

// A costs scene has more namespaces than that of the test.
type costs struct {
	scene
	big, other string
	binary     string // that of the chapter, unless it is empty
}

func (s *costs) makeNamespace(t *testing.T) string {
	t.Helper()
	ns, err := newNamespace(t.Context(), t, s.client, "e2e")
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// createLarge creates a pod as large as those in production, which nobody writes to again.
func (s *costs) createLarge(ctx context.Context, ns string, i int) error {
	pod := gated(fmt.Sprintf("pod-%d", i))
	pod.Labels = map[string]string{"app": fmt.Sprintf("web-%d", i%3)}
	pod.Annotations = map[string]string{"example.com/checksum": strings.Repeat("0123456789abcdef", 4)}
	pod.Spec.Containers = nil
	for _, name := range []string{"nginx", "proxy"} {
		c := corev1.Container{Name: name, Image: cluster.Nginx, Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
		}}
		for j := range 25 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", j), Value: fmt.Sprintf("https://service-%d.example.com/%s/%d", j, name, i)})
		}
		for j := range 4 {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: fmt.Sprintf("volume-%d", j), MountPath: fmt.Sprintf("/etc/volumes/%d", j)})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	for j := range 4 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("volume-%d", j), VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: fmt.Sprintf("settings-%d", j)}},
		}})
	}
	_, err := s.client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

// A cost is what 11 says about a way: its lines before the sync.
type cost map[string]int

var costLine = regexp.MustCompile(`^(pods in the store|time to sync|requests|received|heap|allocated|found by index|found by scan) +(-?\d+)( ms| KiB| µs)?$`)

// ask runs 11, holds its answer to want, and returns what it cost. The mutation detector would keep
// a second copy of the store.
func (s *costs) ask(t *testing.T, env string, want []string, args ...string) cost {
	t.Helper()
	s.chapter = chapters.Start(t, cmp.Or(s.binary, filepath.Join(*built, "11-scale")), []string{"KUBECONFIG=" + s.kubeconfig, env}, args...)
	s.awaitLine(t, want[len(want)-1])
	s.interrupt(t)
	t.Log(env)
	s.story(t)
	lines := s.chapter.Stdout.Lines()
	synced := slices.Index(lines, "cache is synced")
	if synced < 0 || !slices.Equal(lines[synced+1:], want) {
		t.Fatalf("%q, want the answer %q", lines, want)
	}
	of := cost{}
	for _, line := range lines[:synced] {
		m := costLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a cost: %q", line)
		}
		of[m[1]], _ = strconv.Atoi(m[2])
	}
	if names := slices.Sorted(maps.Keys(of)); len(names) != 8 {
		t.Fatalf("costs of %q only", names)
	}
	return of
}
