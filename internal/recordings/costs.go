package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A costWay is a way to have pods in memory: chapter 11 with some flags, or a way of the program in
// controller-runtime/scale.
type costWay struct {
	name     string
	pictures string // that show it: heap, CPU
	list     bool   // LIST and watch, instead of WatchList
	args     []string
}

var costWays = []costWay{
	{"most tutorials", "heap, CPU", false, []string{"scale", "--way", "tutorial"}},
	{"most tutorials, with the client-go of 2021: JSON, LIST", "CPU", true, []string{"scale", "--way", "tutorial-json"}},
	{"most tutorials, with 10 handlers", "", false, []string{"scale", "--way", "handlers"}},
	{"most tutorials, twice in one process", "heap", false, []string{"scale", "--way", "informers"}},
	{"11: whole pods", "CPU", false, []string{"11-scale"}},
	{"11: whole pods, LIST", "CPU", true, []string{"11-scale"}},
	{"11: `--encoding json`", "CPU", false, []string{"11-scale", "--encoding", "json"}},
	{"11: `--encoding json`, LIST", "CPU", true, []string{"11-scale", "--encoding", "json"}},
	{"11: whole pods, built with `-tags fieldsv1string`", "heap", false, []string{"11-scale-interned"}},
	{"11: `--store trimmed`", "heap, CPU", false, []string{"11-scale", "--store", "trimmed"}},
	{"11: `--store trimmed`, LIST", "", true, []string{"11-scale", "--store", "trimmed"}},
	{"11: `--store metadata`", "heap, CPU", false, []string{"11-scale", "--store", "metadata", "--by", "app"}},
	{"11: `--selector`, 10 % of the pods", "heap, CPU", false, []string{"11-scale", "--selector", selectedApp}},
	{"11: `--namespace`, 10 % of the pods", "", false, []string{"11-scale", "--namespace", team(1)}},
	{"11: `--namespace`, all ten by name", "CPU", false, []string{"11-scale", "--namespace", allTeams()}},
	{"11: `--selector` and `--store trimmed`", "heap", false, []string{"11-scale", "--selector", selectedApp, "--store", "trimmed"}},
	{"client-go: only key, version and node", "heap", false, []string{"scale", "--way", "nodes"}},
	{"controller-runtime: no options", "heap", false, []string{"scale", "--way", "cache"}},
	{"controller-runtime: without managedFields", "heap", false, []string{"scale", "--way", "cache-strip"}},
	{"controller-runtime: trimmed", "heap", false, []string{"scale", "--way", "cache-trim"}},
	{"controller-runtime: metadata without managedFields", "heap", false, []string{"scale", "--way", "cache-metadata"}},
	{"controller-runtime: selector, 10 % of the pods", "heap", false, []string{"scale", "--way", "cache-label"}},
}

// indexWay is measured for its answers.
var indexWay = costWay{"index", "", false, []string{"scale", "--way", "index"}}

const selectedApp = "app=app-1"

func allTeams() string {
	var names []string
	for i := range teams {
		names = append(names, team(i))
	}
	return strings.Join(names, ",")
}

// costSizes are the numbers of pods, and how often each way is measured with them.
var costSizes = []struct{ pods, times int }{{1_000, 5}, {10_000, 5}, {100_000, 1}}

// A cost is what a program prints, and what the system says about it and about the API server.
type cost map[string]float64

// costs measures what it costs to have large pods in memory, in many ways. It takes half an hour on
// two cores, and 14 GB of memory, so make docs does not call it.
func (r *recorder) costs(ctx context.Context) (any, error) {
	dir, err := os.MkdirTemp("", "costs-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, build := range [][]string{
		{"build", "-o", dir + "/", "./11-scale"},
		{"build", "-o", dir + "/11-scale-interned", "-tags", "fieldsv1string", "./11-scale"},
		{"-C", "controller-runtime", "build", "-o", dir, "./scale"},
	} {
		if out, err := exec.CommandContext(ctx, "go", build...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go %s: %w: %s", strings.Join(build, " "), err, out)
		}
	}
	tables := costTables{}
	pods := 0
	for _, size := range costSizes {
		if err := r.growLarge(ctx, pods, size.pods); err != nil {
			return nil, err
		}
		pods = size.pods
		fmt.Fprintf(os.Stderr, "%s %d pods\n", time.Now().Format(time.TimeOnly), pods)
		if _, err := r.measure(ctx, dir, costWays[0]); err != nil { // not counted: caches are cold
			return nil, err
		}
		measured := map[string][]cost{}
		for i := range size.times {
			ways := costWays
			if i == 0 {
				ways = append(slices.Clone(ways), indexWay)
			}
			for _, way := range ways {
				c, err := r.measure(ctx, dir, way)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", way.name, err)
				}
				measured[way.name] = append(measured[way.name], c)
				fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), way.name, c)
			}
		}
		tables.add(pods, measured)
	}
	tables["pod"], err = r.describe(ctx)
	return tables, err
}

var costLine = regexp.MustCompile(`^(.+?) +(\d+)( ms| KiB| ns)?$`)

// measure runs a way, and returns what it printed up to its sync, and what the system says.
func (r *recorder) measure(ctx context.Context, dir string, way costWay) (cost, error) {
	scraped, err := r.server(ctx)
	if err != nil {
		return nil, err
	}
	before, err := r.server(ctx) // what a look at the server costs is taken off
	if err != nil {
		return nil, err
	}
	apiServer, err := r.cluster.APIServer()
	if err != nil {
		return nil, err
	}
	// 5 makes the peak that of now (proc_pid_clear_refs(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", apiServer), []byte("5"), 0); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, way.args[0]), append(way.args[1:], "--sync-timeout", "15m")...)
	cmd.Env = append(slices.Clone(r.cluster.Env), "KUBE_FEATURE_WatchListClient="+strconv.FormatBool(!way.list))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	c, synced := cost{}, false
	for lines := bufio.NewScanner(stdout); !synced && lines.Scan(); {
		if m := costLine.FindStringSubmatch(lines.Text()); m != nil {
			c[m[1]], _ = strconv.ParseFloat(m[2], 64)
		}
		synced = lines.Text() == "cache is synced"
	}
	if !synced {
		return nil, fmt.Errorf("%w: %s", cmp.Or(cmd.Wait(), errors.New("it exited too early")), &stderr)
	}
	// That of its rusage would be this program's, if that is larger.
	peak, err := peakRSS(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	serverPeak, err := peakRSS(apiServer)
	if err != nil {
		return nil, err
	}
	after, err := r.server(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%w: %s", err, &stderr)
	}
	c["peak RSS"], c["peak RSS of the API server"] = peak, serverPeak
	c["CPU"] = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	for _, name := range serverMetrics {
		c[name] = max(0, after[name]-before[name]-(before[name]-scraped[name]))
	}
	return c, nil
}

var serverMetrics = []string{"process_cpu_seconds_total", "go_memstats_alloc_bytes_total"}

// server returns metrics of the API server.
func (r *recorder) server(ctx context.Context) (map[string]float64, error) {
	text, err := r.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(serverMetrics, name) {
			if values[name], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, err
			}
		}
	}
	return values, nil
}

// peakRSS returns the most memory that a process has had, in KiB.
func peakRSS(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	return strconv.ParseFloat(strings.Fields(rest + " ?")[0], 64)
}

// describe returns how large a pod is.
func (r *recorder) describe(ctx context.Context) (any, error) {
	list, err := r.client.CoreV1().Pods(team(1)).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	pod := list.Items[0]
	size := func() float64 { text, _ := json.Marshal(pod); return round(float64(len(text))/1024, 100) }
	whole, protobuf := size(), round(float64(pod.Size())/1024, 100)
	pod.ManagedFields = nil
	return []struct {
		JSON     float64 `json:"KiB_of_JSON"`
		Without  float64 `json:"of_them_managedFields"`
		Protobuf float64 `json:"KiB_of_protobuf"`
	}{{whole, round(whole-size(), 100), protobuf}}, nil
}

// A costClient is what a program pays.
type costClient struct {
	Way       string  `json:"way"`
	Pods      float64 `json:"pods"`
	Time      float64 `json:"s_to_sync"`
	CPU       float64 `json:"CPU_s"`
	Received  float64 `json:"received_MB"`
	Allocated float64 `json:"allocated_MB"`
	Peak      float64 `json:"peak_RSS_MB"`
	Heap      float64 `json:"heap_MB"`
	Ratio     float64 `json:"of_the_first_heap"`
}

// A costServer is what the API server pays for it.
type costServer struct {
	Way       string  `json:"way"`
	Requests  float64 `json:"requests"`
	CPU       float64 `json:"CPU_s"`
	Allocated float64 `json:"allocated_MB"`
	Peak      float64 `json:"peak_RSS_MB"`
}

// A costAnswer is the time of one answer from a store.
type costAnswer struct {
	Pods     int     `json:"pods"`
	Question string  `json:"question"`
	Found    float64 `json:"found"`
	Index    float64 `json:"index_µs"`
	Scan     float64 `json:"scan_µs"`
	Ratio    float64 `json:"scan_of_index"`
}

// costTables are the recording.
type costTables map[string]any

// add adds what was measured with a number of pods.
func (t costTables) add(pods int, measured map[string][]cost) {
	median := func(way, of string) float64 {
		var all []float64
		for _, c := range measured[way] {
			all = append(all, c[of])
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	var clients []costClient
	var servers []costServer
	for _, way := range costWays {
		value := func(of string, unit float64) float64 { return digits3(median(way.name, of) * unit) }
		heap := median(way.name, "heap")
		clients = append(clients, costClient{
			Way: way.name, Pods: median(way.name, "pods in the store"), Time: value("time to sync", 1e-3), CPU: value("CPU", 1),
			Received: value("received", 1024/1e6), Allocated: value("allocated", 1024/1e6), Peak: value("peak RSS", 1024/1e6),
			Heap: value("heap", 1024/1e6), Ratio: digits3(heap / median(costWays[0].name, "heap")),
		})
		servers = append(servers, costServer{
			Way: way.name, Requests: median(way.name, "requests"),
			CPU: round(median(way.name, "process_cpu_seconds_total"), 100), Allocated: value("go_memstats_alloc_bytes_total", 1e-6),
			Peak: value("peak RSS of the API server", 1024/1e6),
		})
	}
	t[fmt.Sprint("client_", pods)], t[fmt.Sprint("server_", pods)] = clients, servers
	answers, _ := t["answers"].([]costAnswer)
	for _, question := range []string{"node", "label"} {
		index, scan := median(indexWay.name, question+", index"), median(indexWay.name, question+", scan")
		answers = append(answers, costAnswer{
			Pods: pods, Question: question, Found: median(indexWay.name, question+", index, found"),
			Index: digits3(index / 1e3), Scan: digits3(scan / 1e3), Ratio: digits3(scan / index),
		})
	}
	t["answers"] = answers
	t.draw(pods, clients, servers)
}

// cpuPods are the most pods with which each way is measured several times. The API server has other
// work, such as a comparison of its cache with etcd, which only the median leaves out.
const cpuPods = 10_000

// draw adds to the pictures: the heap with each number of pods, and the CPU time with cpuPods.
func (t costTables) draw(pods int, clients []costClient, servers []costServer) {
	if t["dots"] == nil {
		t["dots"] = []*dots{
			{Name: "costs-heap", Title: "Heap of a store, by way and number of pods", Unit: "MB"},
			{Name: "costs-cpu", Title: fmt.Sprintf("CPU time until %s pods are in the store", thousands(cpuPods)), Unit: "s"},
		}
	}
	heap, cpu := t["dots"].([]*dots)[0], t["dots"].([]*dots)[1]
	for i, way := range costWays {
		client := clients[i]
		if strings.Contains(way.pictures, "heap") {
			heap.add(way.name, dot{At: client.Heap, Kind: thousands(pods) + " pods"})
		}
		if strings.Contains(way.pictures, "CPU") && pods == cpuPods {
			cpu.add(way.name, dot{client.CPU, "program"}, dot{servers[i].CPU, "API server"})
		}
	}
	heap.Alt, cpu.Alt = heap.words(), cpu.words()
}

// digits3 rounds to three digits.
func digits3(x float64) float64 {
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64)
	return rounded
}

// thousands writes a number of thousands with a comma.
func thousands(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }
