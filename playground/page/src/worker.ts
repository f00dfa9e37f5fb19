// Runs the engine in virtual time. The clock stands still while Go runs. When every goroutine waits, Go
// returns here, and the clock moves to the next timer, as fast as the page wants. So a run is the same each
// time, and nothing in it depends on how fast the machine is.
import type { Command, FromWorker, ToWorker } from './types'

declare const self: DedicatedWorkerGlobalScope & {
  Go: new () => { importObject: WebAssembly.Imports; run(instance: WebAssembly.Instance): Promise<void>; exit(code: number): void; env: Record<string, string> }
  fs: { writeSync(file: number, text: Uint8Array): number }
  seen(event: string): void
  playground(command: string): unknown
  playgroundStore(): string
}

const realTimeout = self.setTimeout.bind(self)
const realNow = performance.now.bind(performance)
const RealDate = Date
const began = RealDate.UTC(2026, 0, 1)

let now = 0
let lastTimer = 0
let timers: { id: number; due: number; call: () => void }[] = []

function after(ms: number, call: () => void): number {
  const timer = { id: ++lastTimer, due: now + Math.max(0, ms), call }
  let i = timers.length
  while (i > 0 && timers[i - 1].due > timer.due) i--
  timers.splice(i, 0, timer)
  return timer.id
}

// What Go's runtime uses: its clock, its timers, and its source of randomness, which seeds back-offs, the
// time-outs of watches, and the order of maps.
performance.now = () => now
self.setTimeout = ((call: () => void, ms = 0) => after(ms, call)) as typeof self.setTimeout
self.clearTimeout = (id) => { timers = timers.filter((t) => t.id !== id) }
globalThis.Date = class extends RealDate {
  constructor(time?: number) { super(time ?? began + now) }
  static now() { return began + now }
} as DateConstructor
let seed = 42
crypto.getRandomValues = <T extends ArrayBufferView | null>(array: T): T => {
  const bytes = new Uint8Array(array!.buffer, array!.byteOffset, array!.byteLength)
  for (let i = 0; i < bytes.length; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    bytes[i] = seed >>> 24
  }
  return array
}

let speed = 0 // milliseconds of virtual time in one of real time; 0 stands still
let until = Infinity // where the clock stops by itself
let held = 0 // real time until which the last events are to be looked at
let target = 0
let last = realNow()
let events: string[] = []
let exited = false
let storeChanged = false

self.seen = (event) => {
  events.push(event)
  if (event.includes('"stage":"store"')) storeChanged = true
}

const post = (message: FromWorker) => self.postMessage(message)

let storeSent = 0 // real time
let memory: WebAssembly.Memory

function flush() {
  const news = events.map((e) => JSON.parse(e))
  events = []
  // A large store takes time to list, so it is not listed for each event.
  let store: Record<string, string> | undefined
  if (storeChanged && (speed === 0 || now >= until || realNow() - storeSent > 250)) {
    if (!exited) store = JSON.parse(self.playgroundStore())
    storeChanged = false
    storeSent = realNow()
  }
  post({ type: 'seen', events: news, now, ended: now >= until, memory: memory.buffer.byteLength, store })
}

// fire moves the clock to the next timer, and lets Go run until all its goroutines wait.
function fire() {
  const timer = timers.shift()!
  now = Math.max(now, timer.due)
  timer.call()
}

const due = (time: number) => !exited && timers.length > 0 && timers[0].due <= Math.min(time, until)

function runTo(time: number, budget = Infinity) {
  const begin = realNow()
  while (due(time) && realNow() - begin < budget) fire()
  if (!due(time)) now = Math.max(now, Math.min(time, until))
}

function tick() {
  const real = realNow()
  if (speed === 0 && storeChanged) flush()
  if (speed > 0 && real >= held) {
    target = Math.min(Math.max(target, now) + (real - last) * speed, until)
    if (speed <= 1) {
      // Slow enough to watch: one timer at a time, and a moment for what it did.
      if (due(target)) {
        fire()
        held = real + Math.min(events.length * 60, 600)
        target = now
      } else now = target
    } else {
      runTo(target, 12)
      target = now
    }
    flush()
  }
  last = real
  realTimeout(tick, 16)
}

function command(c: Command) {
  if (exited) return
  const problem = self.playground(JSON.stringify(c))
  if (problem) post({ type: 'failed', text: String(problem) })
  while (due(now)) fire() // the command runs in a goroutine of its own
}

self.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  switch (data.type) {
    case 'load': {
      try {
        importScripts(data.exec)
        const go = new self.Go()
        // What the program prints when it panics says why it ended.
        let printed = ''
        const write = self.fs.writeSync
        self.fs.writeSync = (file, text) => {
          printed = (printed + new TextDecoder().decode(text)).slice(-20_000)
          return write(file, text)
        }
        go.exit = (code) => {
          exited = true
          const why = /^(panic|fatal error): (.*)$/m.exec(printed)?.[2] ?? ''
          post({ type: 'failed', text: `The program has ended with exit code ${code}: ${why.replace(/ \[recovered.*/, '')}. "From the start" starts it again.` })
        }
        go.env = data.detector ? { KUBE_CACHE_MUTATION_DETECTOR: 'true' } : {}
        const instance = new WebAssembly.Instance(data.module, go.importObject)
        memory = instance.exports.mem as WebAssembly.Memory
        void go.run(instance)
        until = data.until
        for (const [at, c] of data.script) after(at, () => command(c))
        runTo(0)
        flush()
        realTimeout(tick, 0)
      } catch (error) {
        post({ type: 'failed', text: String(error) })
      }
      return
    }
    case 'command':
      until = Infinity
      command(data.command)
      break
    case 'pace':
      speed = data.speed
      held = 0
      target = now
      return
    case 'step':
      speed = 0
      for (let i = 0; i < 1000 && !events.length && due(Infinity); i++) fire()
      target = now
      break
    case 'to':
      runTo(data.time)
      target = now
      break
  }
  flush()
}
