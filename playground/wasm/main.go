//go:build js && wasm

// wasm is the playground for a browser. The page's worker gives it a clock, and calls playground(command) with a
// command in JSON, and playgroundStore() for what the store has. It defines seen(event), which gets each event in
// JSON.
package main

import (
	"context"
	"encoding/json"
	"log"
	"strings"
	"syscall/js"

	"k8s.io/klog/v2"

	"example.com/informers/playground/control"
	"example.com/informers/playground/engine"
)

func main() {
	p := control.InMemory(context.Background(), func(event engine.Event) { js.Global().Call("seen", text(event)) })
	// What client-go logs is an event, too: it would go to stderr.
	klog.LogToStderr(false)
	klog.SetOutput(logs{p})
	log.SetOutput(logs{p})
	js.Global().Set("playground", js.FuncOf(func(_ js.Value, args []js.Value) any {
		var c control.Command
		if err := json.Unmarshal([]byte(args[0].String()), &c); err != nil {
			return err.Error()
		}
		go func() { _ = p.Do(c) }() // a callback must not wait; an error is an event
		return nil
	}))
	js.Global().Set("playgroundStore", js.FuncOf(func(js.Value, []js.Value) any { return text(p.Store()) }))
	select {}
}

func text(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // all types can be written
	}
	return string(data)
}

type logs struct{ *control.Playground }

func (l logs) Write(data []byte) (int, error) {
	l.See(engine.Event{Stage: engine.Failure, Kind: "client-go logs", Text: strings.TrimSpace(string(data))})
	return len(data), nil
}
