package promises

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	memory "example.com/informers/playground/apiserver"
)

// writeKubeconfig writes a kubeconfig for one server and returns its path.
// Without a ca the system's certificate authorities are asked.
func writeKubeconfig(t *testing.T, server string, ca []byte) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve starts a TLS server on loopback and returns it and a kubeconfig for it.
func serve(t *testing.T, handler http.Handler) (*httptest.Server, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() { stop(server) })
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return server, writeKubeconfig(t, server.URL, ca)
}

// discoverable also lists resources, as an API server does for anyone who is logged in.
func discoverable(handler http.Handler) http.Handler {
	answers := map[string]any{
		"/api":  metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{"v1"}},
		"/apis": metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}},
		"/api/v1": metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "Pod", ShortNames: []string{"po"}, Verbs: metav1.Verbs{"list", "watch"}},
			{Name: "bindings", SingularName: "binding", Namespaced: true, Kind: "Binding", Verbs: metav1.Verbs{"create"}},
		}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// stop makes the server refuse connections from now on.
func stop(server *httptest.Server) {
	_ = server.Listener.Close()
	server.CloseClientConnections()
	server.Close()
}

func refusing(t *testing.T) string {
	server, kubeconfig := serve(t, http.NotFoundHandler())
	stop(server)
	return kubeconfig
}

// silent accepts connections and never answers.
func silent(t *testing.T) string {
	kubeconfig, _ := silentServer(t)
	return kubeconfig
}

// silentServer also tells when it was connected to.
func silentServer(t *testing.T) (kubeconfig string, connected <-chan struct{}) {
	first, once := make(chan struct{}), sync.Once{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			once.Do(func() { close(first) })
		}
	}()
	return writeKubeconfig(t, "https://"+listener.Addr().String(), nil), first
}

func withoutTLS(t *testing.T) string {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return writeKubeconfig(t, "https://"+server.Listener.Addr().String(), nil)
}

func unknownAuthority(t *testing.T) string {
	server, _ := serve(t, http.NotFoundHandler())
	return writeKubeconfig(t, server.URL, nil)
}

// unauthorized answers everything with 401.
func unauthorized(t *testing.T) string {
	_, kubeconfig := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
	}))
	return kubeconfig
}

// forbidden tells its version and answers all else with 403, as an API server
// does whose default roles are unchanged (system:public-info-viewer).
func forbidden(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", version)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusForbidden, metav1.StatusReasonForbidden,
			`pods is forbidden: User "jane" cannot list resource "pods" in API group "" at the cluster scope`)
	})
	_, kubeconfig := serve(t, discoverable(mux))
	return kubeconfig
}

// undecodable has a pod that does not fit the Go type: its memory is not a quantity.
func undecodable(t *testing.T) string {
	const pod = `{"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "default", "name": "web", "resourceVersion": "1"},
		"spec": {"containers": [{"name": "nginx", "resources": {"limits": {"memory": "much"}}}]}}`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", version)
	mux.HandleFunc("GET /api/v1/pods", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			fmt.Fprintf(w, `{"type": "ADDED", "object": %s}`+"\n", pod)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprintf(w, `{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "2"}, "items": [%s]}`, pod)
	})
	_, kubeconfig := serve(t, mux)
	return kubeconfig
}

func writeStatus(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(code))
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	})
}

func version(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"gitVersion": "v1.37.2"}`)
}

// apiserver is an API server in memory that holds count pods, which nobody changes. The tests on
// a real cluster are in e2e; this one can be stopped in the middle.
func apiserver(count int) http.Handler {
	server := memory.New(memory.Options{})
	for i := range count {
		pod := fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"pod-%d"},"spec":{"containers":[{"name":"nginx","image":"nginx"}]}}`, i)
		server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/api/v1/namespaces/default/pods", strings.NewReader(pod)))
	}
	return discoverable(server)
}
