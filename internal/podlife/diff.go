package podlife

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A Change is the change of one field. Old or New is "" if the field did not or does not exist.
type Change struct{ Path, Old, New string }

// diff returns what changed, without managedFields and the resourceVersion. For a create
// old is nil, and everything has changed.
func diff(old, now *corev1.Pod) (changes []Change, err error) {
	before, err := leaves(old)
	if err != nil {
		return nil, err
	}
	after, err := leaves(now)
	if err != nil {
		return nil, err
	}
	both := maps.Clone(before)
	maps.Copy(both, after)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		if before[path] != after[path] {
			changes = append(changes, Change{path, before[path], after[path]})
		}
	}
	return changes, nil
}

// leaves returns the values of a pod, by path.
func leaves(pod *corev1.Pod) (map[string]string, error) {
	values := map[string]string{}
	if pod == nil {
		return values, nil
	}
	pod = pod.DeepCopy()
	pod.ManagedFields, pod.ResourceVersion = nil, ""
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	flatten(values, "", object)
	return values, err
}

// flatten adds the values of a part of an object, by path. An item of a list is named by its
// type or its name, such as a condition or a container, or else by its index.
func flatten(values map[string]string, path string, part any) {
	switch part := part.(type) {
	case map[string]any:
		for key, value := range part {
			flatten(values, strings.TrimPrefix(path+"."+key, "."), value)
		}
	case []any:
		for i, value := range part {
			item, _ := value.(map[string]any)
			key := cmp.Or(item["type"], item["name"], any(i))
			flatten(values, fmt.Sprintf("%s[%v]", path, key), value)
		}
	case nil:
	default:
		values[path] = fmt.Sprint(part)
	}
}
