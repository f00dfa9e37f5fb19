//go:build cluster

package playground

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestStoriesWithRealTime plays the short stories with what go run ./playground --cluster --allow-writes serves, on
// a control plane from cluster/. ^C removes the namespace. e2e plays all stories, without a browser.
func TestStoriesWithRealTime(t *testing.T) {
	sh := func(command string) string {
		t.Helper()
		var stderr strings.Builder
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir, cmd.Stderr = root, &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, &stderr)
		}
		return strings.TrimSpace(string(out))
	}
	const up = `eval "$(go -C cluster run . up --name stories)" && `
	t.Cleanup(func() { sh("go -C cluster run . down --name stories") })
	kubeconfig := sh(up + `echo "$KUBECONFIG"`)
	t.Run("stories", func(t *testing.T) { playAll(t, serve(t, kubeconfig, "--allow-writes")) })
	if namespaces := sh(up + "kubectl get namespaces -o name"); strings.Contains(namespaces, "playground-") {
		t.Errorf("after ^C, a namespace is left:\n%s", namespaces)
	}
}

func playAll(t *testing.T, address string) {
	t.Helper()
	p := openAt(t, address, 1280)
	p.await(t, "document.querySelector('header').textContent.includes('this page writes in the namespace playground-')")
	for _, story := range []string{"sync", "life", "selector", "slow", "own", "workqueue"} {
		t.Run(story, func(t *testing.T) {
			if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("location.hash = '"+story+"'")); err != nil {
				t.Fatal(err)
			}
			p.await(t, "!!document.querySelector('.tale') && !document.querySelector('.tale .right')")
			p.do(t, chromedp.Click(".tale fieldset button"))
			p.await(t, "!!document.querySelector('.tale .right')")
			p.keep(t)
			right := p.text(t, ".tale .right")
			// Kubernetes does not guarantee what a lister has right after a write.
			if want := rightAnswers[story]; story != "own" && !strings.HasPrefix(right, want) {
				t.Errorf("the page says that %q is right, want %q", right, want)
			}
			if problem, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.querySelector('.problem')?.textContent ?? ''")); err != nil || problem != "" {
				t.Errorf("the page reports %q, %v", problem, err)
			}
		})
	}
}
