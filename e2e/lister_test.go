package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
)

func TestLister(t *testing.T) {
	t.Parallel()
	s := &scene{}
	testenv.Test(t, features.New("06-lister").WithLabel("chapter", "06").
		WithSetup("two pods, and the chapter", s.setup(func(t *testing.T) {
			s.createGated(t, "web", "db")
			s.chapter = s.start(t, "06-lister", "--annotate", "web")
		})).
		Assess("counts from the cache, then a write of its own, then the cache has it", step(func(t *testing.T) {
			s.awaitLine(t, "the lister has read it")
			s.awaitStep(t, updated(s.key("web"), ""), timeout)
			s.interrupt(t)
			s.story(t)
			s.match(t, logmatch.Sequence{
				Pass: []logmatch.Step{updated(s.key("web"), ""), updated(s.key("db"), "")},
				Steps: []logmatch.Step{
					logmatch.AnyOrder(logmatch.Exactly("store is synced"), added(s.key("web"), ""), added(s.key("db"), "")),
					logmatch.Exactly("handler is synced"),
					logmatch.Exactly("cache is synced"),
					logmatch.Exactly("pods in the lister: 2"),
					logmatch.Exactly("pods on node <none>: 2"),
					logmatch.Like("the write's version", `written: resourceVersion \d+; read before: resourceVersion \d+`),
					logmatch.Exactly("the lister has read it"),
				},
			})
		})).
		Assess("the annotation, in the version that was written", step(func(t *testing.T) {
			web, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if web.Annotations["informers.example.com/seen"] == "" {
				t.Errorf("web has the annotations %q", web.Annotations)
			}
			versions := s.record.of("web")
			want := "written: resourceVersion " + web.ResourceVersion + "; read before: resourceVersion " + versions[0].ResourceVersion
			if !slices.Contains(s.chapter.Stdout.Lines(), want) {
				t.Errorf("did not print %q", want)
			}
		})).
		Assess("all that cost two requests, the watch and the write", s.requests("update")).
		Assess("a pod that is not there is one line", step(func(t *testing.T) {
			s.chapter = s.start(t, "06-lister", "--annotate", "none")
			code := s.chapter.End(t, timeout)
			if stderr := s.stderr(); code != 1 || !slices.Equal(stderr, []string{`--annotate: pod "none" not found`}) {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
		})).
		Assess("without the copy, the mutation detector ends it", step(func(t *testing.T) {
			bin := t.TempDir()
			flag := chapters.Overlay(t, root, t.TempDir(), "06-lister", "pod := cached.DeepCopy() // the cached one is shared", "pod := cached")
			if err := chapters.Build(root, bin, []string{"06-lister"}, flag); err != nil {
				t.Fatal(err)
			}
			s.chapter = chapters.Start(t, filepath.Join(bin, "06-lister"),
				[]string{"KUBECONFIG=" + s.kubeconfig, "KUBE_CACHE_MUTATION_DETECTOR=true"}, "--namespace", s.namespace, "--annotate", "web")
			if code := s.chapter.End(t, timeout); code != 2 || !strings.Contains(s.chapter.Stderr.String(), "panic: cache *v1.Pod modified") {
				t.Errorf("exit code %d, stderr:\n%s", code, &s.chapter.Stderr)
			}
		})).
		Feature())
}
