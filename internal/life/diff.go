package life

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A Change is the change of one field. Old or New is "" if the field did not or does not exist.
type Change struct{ Path, Old, New string }

// Diff returns what changed, without managedFields and the resourceVersion. For a create
// old is nil, and everything has changed.
func Diff(old, now *corev1.Pod) ([]Change, error) {
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
	var changes []Change
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
	if err != nil {
		return nil, err
	}
	flatten(values, "", object)
	return values, nil
}

func flatten(values map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if path != "" {
				key = path + "." + key
			}
			flatten(values, key, value)
		}
	case []any:
		for i, value := range v {
			flatten(values, fmt.Sprintf("%s[%v]", path, itemKey(i, value)), value)
		}
	case nil:
	default:
		values[path] = fmt.Sprint(v)
	}
}

// itemKey returns the key that identifies an item in most lists of a pod; in the other
// lists it returns the index.
func itemKey(i int, v any) any {
	item, _ := v.(map[string]any)
	for _, key := range []string{"type", "name"} { // for conditions, containers, and similar lists
		if item[key] != nil {
			return item[key]
		}
	}
	return i
}
