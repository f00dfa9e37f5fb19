import { scaleLinear } from 'd3-scale'
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { differences, empty, id, look, most, seconds, shapes, take, type Look, type View } from './model'
import { link, stories, type Story } from './stories'
import type { At, Command, Event, FromWorker, Settings, ToWorker } from './types'

const free: Settings = { Resync: 30_000, RunEvery: 10_000, WatchList: true, Handlers: [{ Name: 'a' }, { Name: 'b' }] }
const queue = { Takes: 500, Fails: 1 }
const opening = (settings: Settings): At[] => [[0, { Do: 'create', Name: 'web' }], [1_000, { Do: 'start', Settings: settings }]]
const speeds: [string, number][] = [['1×', 1], ['10×', 10], ['60×', 60], ['as fast as it goes', 100_000]]

// The address names a story, a speed, and the settings of the informer: #relist?speed=60, #?resync=10&watchlist=no.
interface Address { story?: Story; speed?: number; settings: Settings }

function fromAddress(): Address {
  const [name, query] = location.hash.slice(1).split('?')
  const q = new URLSearchParams(query)
  const yes = (key: string, usual: boolean) => (q.has(key) ? q.get(key) === 'yes' : usual)
  const resync = Number(q.get('resync') ?? 30)
  return {
    story: stories.find((s) => s.id === name),
    speed: speeds.find(([, s]) => q.get('speed') === String(s))?.[1],
    settings: {
      ...free, Resync: resync >= 0 ? resync * 1000 : free.Resync, WatchList: yes('watchlist', true), Trim: yes('transform', false),
      Worker: yes('queue', false) ? queue : undefined, Labels: q.get('labels') ?? '',
    },
  }
}

// toAddress puts into the address what differs from the usual.
function toAddress(story: Story | undefined, speed: number, s: Settings) {
  const q = new URLSearchParams()
  if (speed !== 0 && speed !== 1) q.set('speed', String(speed))
  if (!story) {
    if (s.Resync !== free.Resync) q.set('resync', String(s.Resync / 1000))
    if (!s.WatchList) q.set('watchlist', 'no')
    if (s.Trim) q.set('transform', 'yes')
    if (s.Worker) q.set('queue', 'yes')
    if (s.Labels) q.set('labels', s.Labels)
  }
  history.replaceState(null, '', '#' + (story?.id ?? '') + (q.size ? '?' + q : ''))
}

// The stages of the pipeline, in the order of docs/how-an-informer-works.md, each with its place in client-go.
const stages: { stage: Event['stage']; title: string; source: string; hint: string }[] = [
  { stage: 'server', title: 'API server', source: '', hint: 'each write, as the server in memory makes it' },
  { stage: 'request', title: 'Reflector', source: 'tools/cache/reflector.go#L972', hint: 'requests and frames, at the transport' },
  { stage: 'queue', title: 'Queue', source: 'tools/cache/the_real_fifo.go#L255', hint: 'seen by a transform' },
  { stage: 'store', title: 'Store', source: 'tools/cache/thread_safe_store.go#L309', hint: 'seen by an index function' },
  { stage: 'handler', title: 'Handlers', source: 'tools/cache/shared_informer.go#L1478', hint: 'one listener and one buffer each' },
  { stage: 'work', title: 'Work queue', source: 'util/workqueue/queue.go#L227', hint: 'keys, not objects' },
]

interface Saved { version: 1; script: At[]; until: number; events: Event[] }

// App is the page: on a cluster if the server has events of one, else with an informer in this browser.
export function App() {
  const [attached, setAttached] = useState<boolean>()
  useEffect(() => { void fetch('events', { method: 'HEAD' }).then((r) => setAttached(r.ok), () => setAttached(false)) }, [])
  if (attached === undefined) return <p class="loading" role="status">Loading…</p>
  return attached ? <Attached /> : <Playground />
}

// post sends a command to the informer on the cluster.
const post = (c: Command | { Do: 'reset' }) => fetch('events', { method: 'POST', body: JSON.stringify(c) })

// Attached shows an informer on a cluster. Time is real there, so nothing can be stopped or taken back. With a
// namespace to write to, it plays stories.
function Attached() {
  const [selected, setSelected] = useState<Event>()
  const [, setDrawn] = useState(0)
  const [server, setServer] = useState('')
  const [namespace, setNamespace] = useState('')
  const [problem, setProblem] = useState('')
  const [story, setStory] = useState<Story | undefined>(fromAddress().story)
  const [guess, setGuess] = useState<number>()
  const view = useRef<View>(empty())
  const began = useRef(performance.now())
  const arrived = useRef<() => void>(() => {})
  const timers = useRef<number[]>([])
  const draw = () => setDrawn((n) => n + 1)

  useEffect(() => {
    const source = new EventSource('events')
    let news: Event[] = []
    let store: Record<string, string> | undefined
    let frame = 0
    source.onmessage = ({ data }) => {
      const line = JSON.parse(data) as Event & { store?: Record<string, string> }
      if (line.store) store = line.store
      else if (line.kind === 'attached') {
        // A new run begins.
        news = []
        store = undefined
        view.current = empty()
        began.current = performance.now()
        setServer(line.text ?? '')
        setNamespace(line.key ?? '')
        setSelected(undefined)
        arrived.current()
      } else news.push(line)
      frame ||= requestAnimationFrame(() => {
        frame = 0
        take(view.current, news, store, true)
        view.current.now = news.at(-1)?.at ?? view.current.now
        news = []
        store = undefined
        draw()
      })
    }
    source.addEventListener('ended', () => { source.close(); setProblem('The informer has stopped: start the program again.') })
    source.onerror = () => setProblem('The informer has stopped: start the program again.')
    const changed = () => {
      stop()
      view.current.ended = false
      setGuess(undefined)
      const { story } = fromAddress()
      setStory(story)
      if (!story) restart(() => send({ Do: 'start', Settings: free }))
    }
    addEventListener('hashchange', changed)
    return () => { source.close(); removeEventListener('hashchange', changed) }
  }, [])

  const stop = () => { for (const t of timers.current) clearTimeout(t); timers.current = [] }
  const send = (c: Command) => void post(c).then(async (r) => { if (!r.ok) setProblem(await r.text()) }, (e) => setProblem(String(e)))
  // restart removes the pods that are there, and stops the informer.
  const restart = (then: () => void) => {
    arrived.current = () => {
      arrived.current = () => {}
      then()
    }
    void post({ Do: 'reset' })
  }
  // play gives each command of a story at its time.
  const play = (s: Story, i: number) => {
    stop()
    setGuess(i)
    restart(() => {
      const at = (ms: number, call: () => void) => timers.current.push(window.setTimeout(call, ms))
      for (const [ms, c] of s.script) at(ms, () => send(c))
      at(s.until, () => { view.current.ended = true; draw() })
    })
  }

  const v = view.current
  return (
    <>
      <header>
        <h1>Watch an informer</h1>
        {namespace && <StoryMenu story={story} />}
        <output class="now">{seconds(v.now)}</output>{' '}
        <span>On a cluster, {server}. Time is real, and {namespace ? `this page writes in the namespace ${namespace}` : 'this page only reads'}.</span>
      </header>
      {problem && <p class="problem" role="alert">{problem}</p>}
      <main>
        {story && namespace
          ? <Tale key={story.id} story={story} events={v.events} ended={v.ended} guess={guess} onGuess={(i) => play(story, i)} />
          : <Controls command={send} pods={[...v.server.keys()].slice(0, 100)} handlers={v.handlers} writes={!!namespace} />}
        <Pipeline view={v} selected={selected} select={setSelected} />
        <Timeline view={v} now={v.now} span={story && v.ended ? story.until : undefined} selected={selected} select={setSelected} />
        <div class="panels"><Tables view={v} /><Requests view={v} now={v.now} /><Lines view={v} /><Details view={v} event={selected} /></div>
      </main>
      <footer>The informer is client-go v0.37, unmodified. The column "server" has what the last frame of the watch said.</footer>
    </>
  )
}

function StoryMenu({ story }: { story?: Story }) {
  return (
    <label>
      Story{' '}
      <select value={story?.id ?? ''} onChange={(e) => { location.hash = e.currentTarget.value }}>
        <option value="">none: try what you like</option>
        {stories.map((s) => <option value={s.id} key={s.id}>{s.title}</option>)}
      </select>
    </label>
  )
}

function Playground() {
  const [module, setModule] = useState<WebAssembly.Module>()
  const [progress, setProgress] = useState('')
  const [problem, setProblem] = useState('')
  const [{ story, settings, speed: asked }, setAddress] = useState(fromAddress)
  const [speed, setSpeed] = useState(1)
  const [guess, setGuess] = useState<number>()
  const [selected, setSelected] = useState<Event>()
  const [, setDrawn] = useState(0)
  const view = useRef<View>(empty())
  const { now, ended } = view.current
  const worker = useRef<Worker | undefined>(undefined)
  const script = useRef<At[]>([])
  const detector = useRef(false) // KUBE_CACHE_MUTATION_DETECTOR of the program

  useEffect(() => {
    load(setProgress).then(setModule, (e) => setProblem(String(e instanceof Error ? e.message : e)))
    const changed = () => {
      setGuess(undefined)
      setAddress(fromAddress())
    }
    addEventListener('hashchange', changed)
    return () => removeEventListener('hashchange', changed)
  }, [])

  const send = (message: ToWorker) => worker.current?.postMessage(message)

  // begin runs a script from its start, up to a time as fast as it goes.
  const begin = (from: At[], until: number, to = 0, pace = 0) => {
    worker.current?.terminate()
    view.current = empty()
    script.current = [...from]
    setSelected(undefined)
    setDrawn((n) => n + 1)
    const w = new Worker(new URL('./worker.ts', import.meta.url))
    worker.current = w
    // The page is drawn once a frame, whatever arrives in the meantime.
    let frame = 0
    w.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (worker.current !== w) return
      if (data.type === 'failed') {
        setProblem(data.text)
        return
      }
      take(view.current, data.events, data.store)
      view.current.memory = data.memory
      frame ||= requestAnimationFrame(() => {
        frame = 0
        setDrawn((n) => n + 1)
      })
      view.current.now = data.now
      view.current.ended = data.ended
    }
    w.onerror = (e) => setProblem(e.message)
    send({ type: 'load', module: module!, exec: new URL('wasm_exec.js', location.href).href, script: from, until, detector: detector.current })
    if (to > 0) send({ type: 'to', time: to })
    send({ type: 'pace', speed: pace })
    setSpeed(pace)
  }

  useEffect(() => {
    if (!module) return
    setGuess(undefined)
    if (story) begin(story.script, story.until)
    else begin(opening(settings), 1e12, 0, asked ?? 1)
  }, [module, story, settings])

  const pace = (s: number) => {
    toAddress(story, s, settings)
    setSpeed(s)
    send({ type: 'pace', speed: s })
  }
  const command = (c: Command) => {
    if (c.Do === 'start') toAddress(story, speed, c.Settings)
    script.current.push([view.current.now, c])
    send({ type: 'command', command: c })
  }
  const save = () => {
    const data: Saved = { version: 1, script: script.current, until: story?.until ?? now, events: view.current.events }
    const a = document.createElement('a')
    a.href = URL.createObjectURL(new Blob([JSON.stringify(data)], { type: 'application/json' }))
    a.download = 'informer.json'
    a.click()
    URL.revokeObjectURL(a.href)
  }
  const open = async (file: File) => {
    try {
      const data = JSON.parse(await file.text()) as Saved
      if (data.version !== 1 || !Array.isArray(data.script)) throw new Error('it is not a run that this page has saved')
      setProblem('')
      begin(data.script, data.until, data.until)
    } catch (e) {
      setProblem(`open ${file.name}: ${e instanceof Error ? e.message : e}`)
    }
  }

  if (problem && !module) return <p class="problem" role="alert">{problem}</p>
  if (!module) return <p class="loading" role="status">Loading client-go: {progress}</p>
  const v = view.current
  return (
    <>
      <header>
        <h1>Watch an informer</h1>
        <StoryMenu story={story} />
        <div class="clock" role="group" aria-label="Clock">
          <output class="now" aria-label="Virtual time">{seconds(now)}</output>
          <button onClick={() => pace(0)} aria-pressed={speed === 0}>Pause</button>
          <button onClick={() => { setSpeed(0); send({ type: 'step' }) }} title="up to the next event">Step</button>
          {speeds.map(([name, s]) => <button key={name} onClick={() => pace(s)} aria-pressed={speed === s}>{name}</button>)}
          <button onClick={() => begin(script.current, story?.until ?? 1e12)}>From the start</button>
          <button onClick={save}>Save</button>
          <label class="button">Open<input type="file" accept="application/json" onChange={(e) => { const f = e.currentTarget.files?.[0]; if (f) void open(f); e.currentTarget.value = '' }} /></label>
        </div>
      </header>
      {problem && <p class="problem" role="alert">{problem} <button onClick={() => setProblem('')}>Close</button></p>}
      <main>
        {story
          ? <Tale story={story} events={v.events} ended={ended} guess={guess} onGuess={(i) => { setGuess(i); pace(asked ?? 1) }} again={(to) => begin(story.script, story.until, to)} />
          : <Controls command={command} pods={[...v.server.keys()].slice(0, 100)} handlers={v.handlers} writes settings={settings} detector={detector.current} detect={(on) => { detector.current = on; begin(opening(settings), 1e12, 0, speed || 1) }} />}
        <Pipeline view={v} selected={selected} select={setSelected} />
        <Timeline view={v} now={now} span={story && ended ? story.until : undefined} selected={selected} select={setSelected} />
        <div class="panels">
          <Tables view={v} />
          <Requests view={v} now={now} />
          <Lines view={v} />
          <Details view={v} event={selected} />
        </div>
      </main>
      <footer>
        The informer is client-go v0.37, unmodified. The API server is in memory, for pods alone.{' '}
        {v.memory > 0 && `Its program has ${Math.round(v.memory / 1e6)} MB. `}
        {v.dropped > 0 && `The page keeps the last ${most} events; ${v.dropped} older ones are gone.`}
      </footer>
    </>
  )
}

// load compiles the program, and says how much of it has arrived.
async function load(progress: (text: string) => void): Promise<WebAssembly.Module> {
  if (typeof WebAssembly !== 'object') throw new Error('This browser has no WebAssembly: use a current Chromium, Firefox or Safari.')
  const response = await fetch('informer.wasm.gz')
  if (!response.ok) throw new Error(`load informer.wasm.gz: ${response.status}`)
  const all = Number(response.headers.get('Content-Length'))
  let bytes = 0
  const counted = response.body!.pipeThrough(new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      bytes += chunk.length
      progress(`${(bytes / 1e6).toFixed(1)} of ${(all / 1e6).toFixed(1)} MB`)
      controller.enqueue(chunk)
    },
  }))
  // A static host sends it as it is, so the page unpacks it.
  const unpacked = counted.pipeThrough(new DecompressionStream('gzip'))
  return WebAssembly.compileStreaming(new Response(unpacked, { headers: { 'Content-Type': 'application/wasm' } }))
}

function Tale(p: { story: Story; events: Event[]; ended: boolean; guess?: number; onGuess: (i: number) => void; again?: (to: number) => void }) {
  const right = p.ended ? p.story.answers.findIndex((a) => a.holds(p.events)) : -1
  return (
    <section class="tale" aria-labelledby="tale">
      <h2 id="tale">{p.story.title}</h2>
      <p>{p.story.intro}</p>
      <fieldset>
        <legend>{p.story.question}</legend>
        {p.story.answers.map((a, i) => (
          <button key={a.text} class={p.ended ? (i === right ? 'right' : 'wrong') : ''} aria-pressed={p.guess === i} disabled={p.guess !== undefined} onClick={() => p.onGuess(i)}>
            {a.text}{p.ended && i === right && ' ✓'}
          </button>
        ))}
      </fieldset>
      <div aria-live="polite">
        {p.guess === undefined && <p class="hint">Choose what you expect. Then it runs{p.again ? '' : `, for ${p.story.until / 1000} s`}.</p>}
        {p.ended && (
          <>
            <p><strong>{p.guess === right ? 'As you expected.' : 'Otherwise than you expected.'}</strong> {p.story.shows}</p>
            <p>{p.story.links.map(([title, path]) => <a key={path} href={link(path)}>{title}</a>)}</p>
          </>
        )}
      </div>
      {p.again && (
        <label>
          Back to{' '}
          <input type="range" min={0} max={p.story.until} step={100} value={0} aria-label="Play again from this time" onChange={(e) => p.again!(Number(e.currentTarget.value))} />
        </label>
      )}
    </section>
  )
}

function Controls({ command, pods, handlers, writes, settings: first, detector, detect }: { command: (c: Command) => void; pods: string[]; handlers: string[]; writes: boolean; settings?: Settings; detector?: boolean; detect?: (on: boolean) => void }) {
  const [pod, setPod] = useState('nginx')
  const [settings, setSettings] = useState<Settings>(first ?? free)
  const names = pods.map((key) => key.split('/')[1])
  const target = names.includes(pod) ? pod : names[0]
  const set = (more: Partial<Settings>) => setSettings({ ...settings, ...more })
  return (
    <section class="controls" aria-label="Controls">
      {writes && <div role="group" aria-label="Pods">
        <h2>Pods</h2>
        <label>Name <input value={pod} onInput={(e) => setPod(e.currentTarget.value)} list="pods" /></label>
        <datalist id="pods">{names.map((n) => <option value={n} key={n} />)}</datalist>
        <button onClick={() => command({ Do: 'create', Name: pod })}>Create</button>
        <button onClick={() => command({ Do: 'create', Name: 'many', Count: 20 })}>Create 20</button>
        <button onClick={() => command({ Do: 'create', Name: pod, Hold: true })}>Create with a finalizer</button>
        <button disabled={!target} onClick={() => command({ Do: 'label', Name: target, Labels: { color: Math.random() < 0.5 ? 'red' : 'blue' } })}>Label {target}</button>
        <button disabled={!target} onClick={() => command({ Do: 'delete', Name: target })}>Delete {target}</button>
        <button disabled={!target} onClick={() => command({ Do: 'delete', Name: target, Grace: 0 })}>Delete {target} now</button>
        <button disabled={!target} onClick={() => command({ Do: 'release', Name: target })}>Remove its finalizer</button>
      </div>}
      <div role="group" aria-label="Faults">
        <h2>Faults</h2>
        <button onClick={() => { command({ Do: 'break', Fault: { Refuse: true } }); command({ Do: 'end' }) }}>Cut: refused</button>
        <button onClick={() => command({ Do: 'break', Fault: { Silent: true } })}>Silent</button>
        {[401, 403, 429, 503].map((Code) => (
          <button key={Code} onClick={() => { command({ Do: 'break', Fault: { Code, RetryAfter: Code === 429 ? 5 : 0 } }); command({ Do: 'end' }) }}>{Code}</button>
        ))}
        <button onClick={() => command({ Do: 'break', Fault: { SwallowBookmarks: true } })}>Swallow bookmarks</button>
        <button onClick={() => command({ Do: 'end' })}>End the watch</button>
        <button onClick={() => command({ Do: 'end', Reset: true })}>Reset the watch</button>
        <button onClick={() => { command({ Do: 'expire' }); command({ Do: 'end' }) }}>410</button>
        <button class="heal" onClick={() => command({ Do: 'break', Fault: {} })}>All well again</button>
      </div>
      <div role="group" aria-label="Handlers">
        <h2>Handlers</h2>
        <button onClick={() => command({ Do: 'handler', Handler: { Name: next(handlers), Resync: 10_000 } })}>Add one, resync 10 s</button>
        <button onClick={() => command({ Do: 'handler', Handler: { Name: next(handlers), Slow: 2_000 } })}>Add a slow one</button>
        <button onClick={() => command({ Do: 'handler', Handler: { Name: next(handlers), Mutate: true } })}>Add one that changes the cache</button>
        {detect && <button onClick={() => command({ Do: 'handler', Handler: { Name: next(handlers), Panic: true } })}>Add one that panics</button>}
        {detect && <label><input type="checkbox" checked={detector} onChange={(e) => detect(e.currentTarget.checked)} /> mutation detector, from the start</label>}
        <button disabled={handlers.length === 0} onClick={() => command({ Do: 'remove', Name: handlers.at(-1)! })}>Remove {handlers.at(-1)}</button>
      </div>
      <div role="group" aria-label="A new informer">
        <h2>A new informer</h2>
        <label>Resync <select value={settings.Resync} onChange={(e) => set({ Resync: Number(e.currentTarget.value) })}>
          {[...new Set([0, 10_000, 30_000, 600_000, settings.Resync])].map((r) => <option value={r} key={r}>{r ? seconds(r) : 'none'}</option>)}
        </select></label>
        <label><input type="checkbox" checked={settings.WatchList} onChange={(e) => set({ WatchList: e.currentTarget.checked })} /> WatchList</label>
        <label><input type="checkbox" checked={!!settings.Trim} onChange={(e) => set({ Trim: e.currentTarget.checked })} /> transform</label>
        <label><input type="checkbox" checked={!!settings.Worker} onChange={(e) => set({ Worker: e.currentTarget.checked ? queue : undefined })} /> work queue</label>
        <label>Selector <input value={settings.Labels ?? ''} placeholder="color=red" onInput={(e) => set({ Labels: e.currentTarget.value })} /></label>
        <button onClick={() => command({ Do: 'start', Settings: settings })}>Stop the old one, start this one</button>
        <button onClick={() => command({ Do: 'stop' })}>Stop</button>
        <button onClick={() => command({ Do: 'again' })} title="which does nothing: a stopped informer stays stopped">Run it again</button>
      </div>
    </section>
  )
}

const next = (handlers: string[]) => 'abcdefghijklmnopqrstuvwxyz'.split('').find((n) => !handlers.includes(n)) ?? 'z'

// A token is one event at one stage. All tokens of one version of a pod are selected together.
function Token({ event, selected, select }: { event: Event; selected?: Event; select: (e: Event) => void }) {
  const kind = look(event)
  const chosen = selected && (selected.seq === event.seq || (event.key && id(selected) === id(event)))
  return (
    <button class={`token ${kind}`} aria-pressed={!!chosen} onClick={() => select(event)} title={`${event.kind} ${event.key ?? ''} ${event.text ?? ''}`}>
      <span aria-hidden="true">{shapes[kind]}</span> {event.handler && `${event.handler}: `}{event.kind} {event.key?.split('/')[1]} {event.version} {['status', 'Get'].includes(event.kind) && event.stage !== 'work' && event.text}
    </button>
  )
}

// lastOf are the last n events that match, the newest first.
function lastOf(events: Event[], n: number, match: (e: Event) => boolean): Event[] {
  const found: Event[] = []
  for (let i = events.length - 1; i >= 0 && found.length < n; i--) if (match(events[i])) found.push(events[i])
  return found
}

function Pipeline({ view, selected, select }: { view: View; selected?: Event; select: (e: Event) => void }) {
  return (
    <section class="pipeline" aria-label="Pipeline">
      {stages.map(({ stage, title, hint, source }) => {
        // Transform and index function may see a version twice. Once is enough.
        const versions = new Set<string>()
        const again = (e: Event) => (stage === 'queue' || stage === 'store') && (versions.has(e.kind + id(e)) || !versions.add(e.kind + id(e)))
        const seen = lastOf(view.events, 7, (e) => e.stage === stage && e.kind !== 'returns' && !again(e))
        return (
          <div class="stage" key={stage}>
            <h2>{source ? <a href={`https://github.com/kubernetes/client-go/blob/v0.37.2/${source}`}>{title}</a> : title}</h2>
            <p class="hint">{hint}</p>
            <ol>{seen.map((e) => <li key={e.seq}><Token event={e} selected={selected} select={select} /></li>)}</ol>
          </div>
        )
      })}
    </section>
  )
}

function Timeline({ view, now, span: whole, selected, select }: { view: View; now: number; span?: number; selected?: Event; select: (e: Event) => void }) {
  const [zoom, setSpan] = useState<number>()
  const [back, setBack] = useState(0) // how far it was dragged into the past
  const [pointer, setPointer] = useState<number>() // where the pointer is
  const drag = useRef<{ x: number; back: number } | undefined>(undefined)
  const span = zoom ?? whole ?? 30_000
  const [width, setWidth] = useState(1000)
  const box = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width))
    observer.observe(box.current!)
    return () => observer.disconnect()
  }, [])
  const lanes = useMemo(() => ['requests', 'store', ...view.handlers.map((h) => 'handler ' + h), 'work queue', 'errors'], [view.handlers])
  const lane = (e: Event) => ({ request: 0, store: 1, handler: 2 + view.handlers.indexOf(e.handler ?? ''), work: lanes.length - 2, error: lanes.length - 1 } as Record<string, number>)[e.stage]
  const end = Math.max(now, span) - Math.min(back, Math.max(now - span, 0)), from = end - span
  const x = scaleLinear([from, end], [110, Math.max(width - 12, 200)])
  // Of several events with one look at one place, the last one is drawn.
  const taken = new Set<string>()
  const shown = lastOf(view.events, 400, (e) => {
    if (e.at < from || e.at > end || lane(e) === undefined || e.kind === 'returns') return false
    const place = `${lane(e)} ${look(e)} ${Math.round(x(e.at) / 3)}`
    return !taken.has(place) && !!taken.add(place)
  })
  const resyncs = [...new Set(shown.filter((e) => e.kind === 'Update resync').map((e) => e.at))]
  const height = lanes.length * 24 + 26
  const move = (e: PointerEvent) => {
    setPointer(e.clientX - (e.currentTarget as Element).getBoundingClientRect().left)
    if (drag.current) setBack(Math.max(0, drag.current.back + (e.clientX - drag.current.x) / (x(from + 1) - x(from))))
  }
  // The one that the pointer is next to, or else the chosen one.
  const near = pointer === undefined ? undefined : shown.reduce<Event | undefined>((best, e) => (Math.abs(x(e.at) - pointer) < Math.min(12, best ? Math.abs(x(best.at) - pointer) : 12) ? e : best), undefined)
  const said = near ?? selected
  const keys = (e: KeyboardEvent) => {
    const step = { ArrowLeft: 1, ArrowRight: -1 }[e.key]
    if (!step || !shown.length) return
    e.preventDefault()
    const i = shown.findIndex((s) => s.seq === selected?.seq)
    select(shown[Math.min(Math.max(i + step, 0), shown.length - 1)])
  }
  return (
    <section class="timeline" aria-label="Timeline" ref={box}>
      <div class="zoom" role="group" aria-label="Zoom">
        {back > 0 && <button onClick={() => setBack(0)}>Now</button>}
        {[5_000, 30_000, 120_000, 600_000].map((s) => <button key={s} aria-pressed={span === s} onClick={() => setSpan(s)}>{s / 1000} s</button>)}
      </div>
      <div role="group" tabindex={0} aria-label={`${span / 1000} seconds with ${shown.length} marks. Arrow keys choose one.`} onKeyDown={keys}>
        <svg width={width} height={height} aria-hidden="true" class={drag.current ? 'dragged' : ''}
          onPointerDown={(e) => { drag.current = { x: e.clientX, back: Math.min(back, Math.max(now - span, 0)) } }}
          onPointerMove={move} onPointerUp={() => { drag.current = undefined }} onPointerLeave={() => { drag.current = undefined; setPointer(undefined) }}>
          {lanes.map((name, i) => (
            <g key={name}>
              <text x={4} y={i * 24 + 17}>{name}</text>
              <line class="lane" x1={110} x2={width} y1={i * 24 + 12} y2={i * 24 + 12} />
            </g>
          ))}
          {resyncs.map((at) => <line class="resync" key={at} x1={x(at)} x2={x(at)} y1={0} y2={height - 22} />)}
          {shown.map((e) => {
            const kind = look(e)
            const chosen = selected && (selected.seq === e.seq || (e.key && id(selected) === id(e)))
            return <text class={`point ${kind}${chosen ? ' chosen' : ''}`} key={e.seq} x={x(e.at)} y={lane(e) * 24 + 17} text-anchor="middle" onClick={() => select(e)}>{shapes[kind]}</text>
          })}
          {x.ticks(8).map((t) => <text class="tick" key={t} x={x(t)} y={height - 6} text-anchor="middle">{t / 1000} s</text>)}
          {now <= end && <line class="now" x1={x(now)} x2={x(now)} y1={0} y2={height - 22} />}
          {pointer !== undefined && pointer > 110 && <line class="pointer" x1={pointer} x2={pointer} y1={0} y2={height - 22} />}
        </svg>
      </div>
      <p class="hint said">{said ? `${seconds(said.at)} ${said.stage}${said.handler ? ` ${said.handler}` : ''}: ${said.kind} ${said.key ?? ''} ${said.version ?? ''} ${said.text ?? ''}` : 'Drag to go back in time. Point at a mark to read it, and choose it to see it everywhere.'}</p>
      <p class="legend">{(Object.keys(shapes) as Look[]).filter((k) => k !== 'other').map((k) => <span key={k} class={k}><span aria-hidden="true">{shapes[k]}</span> {k}</span>)}</p>
    </section>
  )
}

function Tables({ view }: { view: View }) {
  // Of many pods the first ones that the server has are enough, and quick to find.
  const all = new Set(view.server.size > 100 ? [...view.server.keys()].slice(0, 12) : [...view.server.keys(), ...view.store.keys()])
  const keys = [...all].sort()
  const more = Math.max(view.server.size, view.store.size) - 12
  return (
    <section aria-labelledby="tables">
      <h2 id="tables">Server and store</h2>
      <table>
        <thead><tr><th>pod</th><th>server</th><th>store</th></tr></thead>
        <tbody>
          {keys.slice(0, 12).map((key) => (
            <tr key={key} class={view.server.get(key) === view.store.get(key) ? '' : 'differs'}>
              <td>{key}</td><td>{view.server.get(key) ?? '–'}</td><td>{view.store.get(key) ?? '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {more > 0 && <p class="hint">and {more} more</p>}
      {keys.length === 0 && <p class="hint">no pods yet</p>}
    </section>
  )
}

function Requests({ view, now }: { view: View; now: number }) {
  return (
    <section aria-labelledby="requests">
      <h2 id="requests">Requests</h2>
      <ol class="requests" tabindex={0}>
        {[...view.requests.values()].slice(-6).reverse().map((r) => (
          <li key={r.id} class={r.ended === undefined ? 'open' : ''}>
            <strong>{r.id} {r.verb}</strong> {r.status} · {r.frames} frames · {r.bytes} bytes · {seconds((r.ended ?? now) - r.began)} {r.end && `· ${r.end}`}
            <div class="query">{r.query.split('&').join(' ')}</div>
          </li>
        ))}
      </ol>
    </section>
  )
}

function Lines({ view }: { view: View }) {
  return (
    <section aria-labelledby="log">
      <h2 id="log">What chapter 05 prints</h2>
      <pre tabindex={0} aria-labelledby="log">{view.log.slice(-14).map((e) => e.text).join('\n')}</pre>
      <h3>Errors: what the watch error handler gets, and what client-go logs</h3>
      <ol class="errors">{view.errors.slice(-4).map((e) => <li key={e.seq}>{seconds(e.at)} {e.kind}: {e.text}</li>)}</ol>
    </section>
  )
}

function Details({ view, event }: { view: View; event?: Event }) {
  if (!event) return <section aria-labelledby="details"><h2 id="details">Details</h2><p class="hint">Choose a token, or a mark on the timeline.</p></section>
  const pod = view.versions.get(id(event))
  const before = event.old ?? [...view.events].reverse().find((e) => e.key === event.key && e.pod && e.seq < event.seq && e.version !== event.version)?.version
  const old = before ? view.versions.get(`${event.key} ${before}`) : undefined
  const request = view.brought.get(id(event)) ?? event.request
  const stage = stages.find((s) => s.stage === event.stage)
  return (
    <section aria-labelledby="details">
      <h2 id="details">{event.kind} {event.key} {event.version}</h2>
      <p>
        At {seconds(event.at)}, stage {stage?.title ?? event.stage}
        {stage?.source && <>, <a href={`https://github.com/kubernetes/client-go/blob/v0.37.2/${stage.source}`}>{stage.source}</a></>}
        {request && <>, brought by request {request}</>}. {event.text}
      </p>
      {old !== undefined && pod !== undefined && <><h3>What differs from {before}</h3><ul>{differences(old, pod).slice(0, 14).map((d) => <li key={d}>{d}</li>)}</ul></>}
      {pod !== undefined && <details><summary>The pod</summary><pre tabindex={0}>{JSON.stringify(pod, null, 2)}</pre></details>}
    </section>
  )
}
