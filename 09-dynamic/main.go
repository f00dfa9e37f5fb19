// 09-dynamic watches resources that it has no Go types for, even those that come and go.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	resources   = flag.String("resource", "pods", "comma-separated `names`, as kubectl takes them")
	group       = flag.String("group", "", "also watch the custom resources of this `API group`")
	onlyMeta    = flag.Bool("metadata", false, "fetch and keep only the metadata of objects")
)

func main() {
	klog.InitFlags(nil) // -v=4 logs what client-go does
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills the program

	w, err := newWatcher(os.Stdout)
	if err == nil {
		err = w.run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A watcher has clients for any resource: discovery lists the resources, dynamic gets objects
// as maps, metadata gets only the metadata of objects.
type watcher struct {
	discovery discovery.DiscoveryInterfaceWithContext
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	out       *log.Logger
	informers map[string]*informer // those that run, by resource and group
}

// newWatcher finds the cluster as kubectl does: --kubeconfig, or KUBECONFIG with
// one file or several, or ~/.kube/config, or the pod that the program runs in.
func newWatcher(stdout io.Writer) (*watcher, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: *kubecontext}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no cluster configured: " +
			"set KUBECONFIG or --kubeconfig to a kubeconfig that names one")
	}
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	served, err1 := discovery.NewDiscoveryClientForConfig(config)
	objects, err2 := dynamic.NewForConfig(config)
	metadata, err3 := metadata.NewForConfig(config)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return nil, err
	}
	// Several goroutines print: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)
	return &watcher{served, objects, metadata, out, map[string]*informer{}}, nil
}

func (w *watcher) run(ctx context.Context) error {
	if *syncTimeout <= 0 {
		return errors.New("--sync-timeout must be more than 0")
	}
	if *resources == "" && *group == "" {
		return errors.New("nothing to watch: --resource or --group must name something")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()

	groups, err := restmapper.GetAPIGroupResourcesWithContext(syncCtx, w.discovery)
	if err != nil {
		return fmt.Errorf("discover resources: %w", err)
	}
	mapper := restmapper.NewShortcutExpanderWithContext(
		restmapper.NewDiscoveryRESTMapperWithContext(groups), w.discovery, nil)
	var found []resource
	for name := range strings.FieldsFuncSeq(*resources, func(c rune) bool { return c == ',' }) {
		r, err := w.find(syncCtx, mapper, name)
		if err != nil {
			return fmt.Errorf("find %q: %w", name, err)
		}
		found = append(found, r) // nothing starts before all are found
	}
	for _, r := range found {
		if err := w.watch(ctx, r); err != nil {
			return err
		}
	}
	names := workqueue.NewTyped[string]() // of CustomResourceDefinitions to check
	context.AfterFunc(ctx, names.ShutDown)
	if *group != "" {
		if err := w.watchCRDs(ctx, names); err != nil {
			return err
		}
	}

	// A handler is synced after its store: it has been called for each object in there.
	for _, i := range w.informers {
		if !cache.WaitFor(syncCtx, "", i.handler.HasSyncedChecker()) {
			return fmt.Errorf("cache is not synced: %w", w.reason(ctx, i))
		}
	}
	w.out.Print("cache is synced")

	for name, ended := names.Get(); !ended; name, ended = names.Get() {
		if err := w.follow(ctx, name); err != nil {
			return err
		}
		names.Done(name)
	}

	for _, i := range w.informers {
		err = errors.Join(err, i.stop())
	}
	return err
}

// An object is a map with what the API server sent.
type object = *unstructured.Unstructured

// A resource is what an API server serves under one path.
type resource struct {
	schema.GroupVersionResource
	kind      string
	namespace string // to watch, all if it is empty
}

// String returns a name that --resource takes, too.
func (r resource) String() string {
	if r.Group == "" {
		return r.Resource
	}
	return r.Resource + "." + r.Version + "." + r.Group
}

// find looks up a resource as kubectl does: by plural, singular or short name, or by
// kind; with or without a group, with or without a version.
func (w *watcher) find(ctx context.Context, mapper meta.RESTMapperWithContext,
	name string) (r resource, err error) {
	versioned, unversioned := schema.ParseResourceArg(name)
	err = &meta.NoResourceMatchError{}
	if versioned != nil { // a.b.c is a in version b of group c, or a in group b.c
		r.GroupVersionResource, err = mapper.ResourceForWithContext(ctx, *versioned)
	}
	if meta.IsNoMatchError(err) {
		partly := unversioned.WithVersion("")
		r.GroupVersionResource, err = mapper.ResourceForWithContext(ctx, partly)
	}
	if meta.IsNoMatchError(err) {
		return r, errors.New("no such resource; kubectl api-resources shows those there are")
	}
	if err != nil {
		return r, err
	}
	version := r.GroupVersion().String()
	list, err := w.discovery.ServerResourcesForGroupVersionWithContext(ctx, version)
	if err != nil {
		return r, err
	}
	for _, api := range list.APIResources {
		if api.Name == r.Resource {
			r.kind = api.Kind
			if api.Namespaced {
				r.namespace = *namespace
			}
			if !slices.Contains(api.Verbs, "list") || !slices.Contains(api.Verbs, "watch") {
				return r, fmt.Errorf("an informer needs list and watch, it has %s", api.Verbs)
			}
		}
	}
	return r, nil
}

// watch starts an informer whose handlers print, unless one runs. Its store has objects as
// maps, or only their metadata.
func (w *watcher) watch(ctx context.Context, r resource) error {
	name := r.GroupResource().String()
	if w.informers[name] != nil {
		return nil
	}
	w.out.Printf("%s: informer starts", r)
	i := &informer{resource: r, told: sets.New[string]()}
	w.informers[name] = i
	if *onlyMeta {
		return start(ctx, i, metadatainformer.NewFilteredMetadataInformer(
			w.metadata, r.GroupVersionResource, r.namespace, 0, cache.Indexers{}, nil),
			printer[*metav1.PartialObjectMetadata](w, i))
	}
	return start(ctx, i, dynamicinformer.NewFilteredDynamicInformer(
		w.dynamic, r.GroupVersionResource, r.namespace, 0, cache.Indexers{}, nil),
		printer[object](w, i))
}

// printer has handlers for objects of any type: generated ones, maps, and metadata.
func printer[T cache.Object](w *watcher, i *informer) cache.TypedResourceEventHandlerFuncs[T] {
	return cache.TypedResourceEventHandlerFuncs[T]{
		AddFunc: func(object T) {
			i.told.Insert(klog.KObj(object).String())
			w.print("handleAdd", i, klog.KObj(object).String())
		},
		UpdateFunc: func(_, object T) { w.print("handleUpdate", i, klog.KObj(object).String()) },
		DeleteFunc: func(object cache.DeletedObject[T]) {
			i.told.Delete(object.GetKey())
			w.print("handleDelete", i, object.GetKey())
		},
	}
}

func (w *watcher) print(handler string, i *informer, key string) {
	w.out.Printf("%s is called for %s (key: %s)", handler, i.resource.kind, key)
}

// An informer is one that runs, with one handler.
type informer struct {
	cache.SharedIndexInformer
	resource resource
	handler  cache.ResourceEventHandlerRegistration
	told     sets.Set[string] // keys for which the handler got an Add, and no Delete yet
	cancel   context.CancelFunc
}

func start[T cache.Object](ctx context.Context, i *informer, generic informers.GenericInformer,
	handler cache.TypedResourceEventHandlerFuncs[T]) (err error) {
	typed := cache.NewTypedSharedIndexInformer[T](generic.Informer())
	// client-go retries forever, less and less often, and calls this with each error.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		log.Printf("watch %s: %v", i.resource, err)
	}
	if err := typed.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}
	if i.handler, err = typed.AddTypedEventHandler(handler); err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}
	i.SharedIndexInformer = typed
	ctx, i.cancel = context.WithCancel(ctx)
	go typed.RunWithContext(ctx)
	return nil
}

// stop stops the informer, and waits for a call in progress. RunWithContext may return
// later: the reflector may be in a long back-off if the server is down.
func (i *informer) stop() error {
	i.cancel()
	return cache.ShutDownEventHandler(i, i.handler)
}

const crds = "--group" // among the names of informers

// watchCRDs starts an informer for CustomResourceDefinitions, which are objects of a
// resource, too. Its handlers only enqueue names.
func (w *watcher) watchCRDs(ctx context.Context, names *workqueue.Typed[string]) error {
	r := resource{GroupVersionResource: schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}}
	i := &informer{resource: r}
	w.informers[crds] = i
	return start(ctx, i, dynamicinformer.NewFilteredDynamicInformer(
		w.dynamic, r.GroupVersionResource, r.namespace, 0, cache.Indexers{}, nil),
		cache.TypedResourceEventHandlerFuncs[object]{
			AddFunc:    func(crd object) { names.Add(crd.GetName()) },
			UpdateFunc: func(_, crd object) { names.Add(crd.GetName()) },
			DeleteFunc: func(crd cache.DeletedObject[object]) { names.Add(crd.GetKey()) },
		})
}

// follow checks a CustomResourceDefinition, which may have been deleted. An informer runs
// while the API server serves the resource.
func (w *watcher) follow(ctx context.Context, name string) error {
	if _, g, _ := strings.Cut(name, "."); g != *group { // widgets.example.com
		return nil
	}
	var now resource
	crd, exists, _ := w.informers[crds].GetStore().GetByKey(name)
	if exists {
		now = served(crd.(object))
	}
	if i := w.informers[name]; i != nil && i.resource != now {
		if err := i.stop(); err != nil {
			return fmt.Errorf("stop %s: %w", i.resource, err)
		}
		if !exists { // its objects are deleted, too, and the last Deletes may not have arrived
			for key := range i.told {
				w.print("handleDelete", i, key)
			}
		}
		w.out.Printf("%s: informer has stopped", i.resource)
		delete(w.informers, name)
	}
	if now.Version == "" {
		return nil
	}
	return w.watch(ctx, now)
}

// served returns the resource that a CustomResourceDefinition is for, in its most stable
// version, or none while the API server does not serve it.
func served(crd object) (r resource) {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	if !slices.ContainsFunc(conditions, func(c any) bool {
		condition, _ := c.(map[string]any)
		return condition["type"] == "Established" && condition["status"] == "True"
	}) {
		return resource{}
	}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		v, _ := v.(map[string]any)
		name, _ := v["name"].(string)
		if v["served"] == true && version.CompareKubeAwareVersionStrings(name, r.Version) > 0 {
			r.Version = name
		}
	}
	if r.Version == "" {
		return r
	}
	r.Resource, r.Group, _ = strings.Cut(crd.GetName(), ".")
	r.kind, _, _ = unstructured.NestedString(crd.Object, "spec", "names", "kind")
	if scope, _, _ := unstructured.NestedString(crd.Object, "spec", "scope"); scope != "Cluster" {
		r.namespace = *namespace
	}
	return r
}

// reason asks the server why a handler is not synced: the watch error handler may
// not hear of a refused connection (client-go's reflector.go, isWatchErrorRetriable).
func (w *watcher) reason(ctx context.Context, i *informer) error {
	if i.HasSynced() {
		return fmt.Errorf("the handlers are still busy with the first %s", i.resource)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	objects := w.dynamic.Resource(i.resource.GroupVersionResource).Namespace(i.resource.namespace)
	if _, err := objects.List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
		return fmt.Errorf("list %s: %w", i.resource, err)
	}
	return fmt.Errorf("not filled within %s, although the server answers a list", *syncTimeout)
}
