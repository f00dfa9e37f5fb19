import type { At, Event, Settings } from './types'

// The server, and the folder of playground-site, have the repository's Markdown.
const repository = './repository/'

// A Story is a script, a question about it, and what it shows. Which answer is right is computed from the run.
export interface Story {
  id: string
  title: string
  intro: string
  script: At[]
  until: number // milliseconds
  question: string
  answers: { text: string; holds: (events: Event[]) => boolean }[]
  shows: string
  links: [string, string][] // title, path in the repository
}

const a = { Name: 'a' }
const b = { Name: 'b' }
const usual: Settings = { Resync: 30_000, RunEvery: 10_000, WatchList: true, Handlers: [a] }
const start = (settings: Partial<Settings> = {}): At => [100, { Do: 'start', Settings: { ...usual, ...settings } }]
const create = (at: number, Name: string, more = {}): At => [at, { Do: 'create', Name, ...more }]

// calls are the calls of a handler: "Add", "Update", "Update resync", "Delete tombstone", …
const calls = (events: Event[], handler: string, kind = '', pod = '') =>
  events.filter((e) => e.stage === 'handler' && e.handler === handler && e.kind.startsWith(kind) && e.kind !== 'returns' && (pod === '' || e.key?.split('/')[1] === pod))
const requests = (events: Event[], kind: string, from = 0) => events.filter((e) => e.stage === 'request' && e.kind === kind && e.at >= from)
const first = (events: Event[], match: (e: Event) => boolean) => events.find(match)?.at ?? Infinity
const storeSynced = (events: Event[]) => first(events, (e) => e.stage === 'synced' && e.kind === 'store')
const handlerSynced = (events: Event[], name: string) => first(events, (e) => e.stage === 'synced' && e.kind === 'handler' && e.handler === name)

export const stories: Story[] = [
  {
    id: 'sync',
    title: 'The initial sync',
    intro: 'Three pods exist. An informer starts, and its handler needs one second for each call.',
    script: [create(0, 'web'), create(0, 'db'), create(0, 'cache'), [3_000, { Do: 'start', Settings: { ...usual, Resync: 0, Handlers: [{ Name: 'a', Slow: 1_000 }] } }]],
    until: 10_000,
    question: 'The store is synced as soon as it has all three pods. When is the handler synced?',
    answers: [
      { text: 'At the same moment: there is one sync.', holds: (e) => Math.abs(handlerSynced(e, 'a') - storeSynced(e)) < 500 },
      { text: 'When it has been called for the third pod, about two seconds later.', holds: (e) => handlerSynced(e, 'a') - storeSynced(e) >= 500 && handlerSynced(e, 'a') - storeSynced(e) < 2_500 },
      { text: 'When its third call has returned, about three seconds later.', holds: (e) => handlerSynced(e, 'a') - storeSynced(e) >= 2_500 },
    ],
    shows: 'The store is synced when the reflector has put the whole initial state into it. Each handler has its own sync, which also waits until its calls for that state have returned. The third meaning, that your work is done, is yours to define.',
    links: [['04-sync', '04-sync'], ['Synced', 'docs/synced.md']],
  },
  {
    id: 'life',
    title: "A pod's life",
    intro: 'The informer is synced. You create a pod, and delete it two seconds after it is ready.',
    script: [start({ Resync: 0 }), create(2_000, 'nginx'), [5_000, { Do: 'delete', Name: 'nginx' }]],
    until: 9_000,
    question: 'You make two requests. How many times is the handler called for nginx?',
    answers: [
      { text: 'Twice: an Add and a Delete.', holds: (e) => calls(e, 'a', '', 'nginx').length === 2 },
      { text: 'Three times: an Add, an Update when it is ready, a Delete.', holds: (e) => calls(e, 'a', '', 'nginx').length === 3 },
      { text: 'More often: each write is a call, and scheduler and kubelet write, too.', holds: (e) => calls(e, 'a', '', 'nginx').length > 3 },
    ],
    shows: 'Add comes first and Delete last. In between, every write to the pod is an Update, whoever makes it. Kubernetes does not guarantee how many there are.',
    links: [['03-handlers', '03-handlers'], ["A pod's life", 'docs/a-pods-life.md']],
  },
  {
    id: 'resync',
    title: 'Resync, and two handlers with different periods',
    intro: 'The informer resyncs every 30 s. Handler b asks for its own period of 60 s. 45 s after the start, the pod gets a label.',
    script: [create(0, 'web'), [3_000, { Do: 'start', Settings: { ...usual, RunEvery: 0, Handlers: [a, { Name: 'b', Resync: 60_000 }] } }], [48_000, { Do: 'label', Name: 'web', Labels: { color: 'red' } }]],
    until: 125_000,
    question: 'In two minutes, how many requests do the resyncs send, and how many resyncs does b get?',
    answers: [
      { text: 'One LIST for each resync; b gets as many as a.', holds: (e) => requests(e, 'LIST', 4_000).length > 0 },
      { text: 'None. b gets as many as a.', holds: (e) => requests(e, 'LIST', 4_000).length === 0 && calls(e, 'b', 'Update resync').length === calls(e, 'a', 'Update resync').length },
      { text: 'None. b gets fewer than a.', holds: (e) => requests(e, 'LIST', 4_000).length === 0 && calls(e, 'b', 'Update resync').length < calls(e, 'a', 'Update resync').length },
    ],
    shows: "A resync reads the informer's own store and passes each pod to the handlers that are due, with the same pointer twice. A write shows two resourceVersions, a resync one.",
    links: [['05-resync', '05-resync'], ['Resync', 'docs/resync.md']],
  },
  {
    id: 'cut',
    title: 'Cut off, and resumed',
    intro: 'The connection is lost, and new ones are refused for 20 s. In the meantime one pod is changed and another one created.',
    script: [
      create(0, 'web', { Hold: true }), start({ Resync: 0 }),
      [5_000, { Do: 'break', Fault: { Refuse: true } }], [5_000, { Do: 'end' }],
      [10_000, { Do: 'label', Name: 'web', Labels: { color: 'red' } }], create(15_000, 'new', { Hold: true }),
      [25_000, { Do: 'break', Fault: {} }],
    ],
    until: 90_000,
    question: 'The informer could not reach the server. What does it do when it can again?',
    answers: [
      { text: 'It lists all pods again.', holds: (e) => requests(e, 'LIST', 5_000).length > 0 || calls(e, 'a', 'Update relist').length > 0 },
      { text: 'It resumes the watch from the last version that it saw, and misses nothing.', holds: (e) => requests(e, 'LIST', 5_000).length === 0 && calls(e, 'a', 'Update relist').length === 0 },
      { text: 'It stops, and the program has to start it again.', holds: (e) => e.some((x) => x.stage === 'synced' && x.kind === 'stopped') },
    ],
    shows: 'A refused connection is retried with a growing back-off. The watch then starts after the last version that the informer knows, so the server sends what came in between. The watch error handler is not told.',
    links: [['When things go wrong', 'docs/when-things-go-wrong.md'], ['Resync', 'docs/resync.md']],
  },
  {
    id: 'relist',
    title: '410, relist, tombstone',
    intro: 'The connection is lost for 20 s. In the meantime web is deleted, and the server forgets its past events.',
    script: [
      create(0, 'web'), create(0, 'stays'), [3_000, { Do: 'start', Settings: { ...usual, Resync: 0 } }],
      [8_000, { Do: 'break', Fault: { Refuse: true } }], [8_000, { Do: 'end' }],
      [8_000, { Do: 'delete', Name: 'web', Grace: 0 }], [8_000, { Do: 'expire' }],
      [28_000, { Do: 'break', Fault: {} }],
    ],
    until: 120_000,
    question: 'The informer cannot see the event of the delete any more. What does the handler get?',
    answers: [
      { text: 'Nothing: web stays in the store.', holds: (e) => calls(e, 'a', 'Delete').length === 0 },
      { text: 'A Delete of web with a tombstone, and an Update of the pod that did not change.', holds: (e) => calls(e, 'a', 'Delete tombstone').length > 0 && calls(e, 'a', 'Update relist', 'stays').length > 0 },
      { text: 'A Delete of web as always.', holds: (e) => calls(e, 'a', 'Delete').length > 0 && calls(e, 'a', 'Delete tombstone').length === 0 },
    ],
    shows: 'The informer takes the whole state again: a relist. A pod that is missing there is reported with a tombstone, DeletedFinalStateUnknown, because its last state is unknown. A pod that did not change is an Update with one resourceVersion and two pointers.',
    links: [['How an informer works', 'docs/how-an-informer-works.md'], ['When things go wrong', 'docs/when-things-go-wrong.md']],
  },
  {
    id: 'selector',
    title: 'Leaving a selector',
    intro: 'The informer watches pods with the label color=red. At 5 s web becomes blue. It is not deleted.',
    script: [
      create(0, 'web', { Labels: { color: 'red' }, Hold: true }), start({ Resync: 0, Labels: 'color=red' }),
      [5_000, { Do: 'label', Name: 'web', Labels: { color: 'blue' } }], [8_000, { Do: 'label', Name: 'web', Labels: { color: 'red' } }],
    ],
    until: 11_000,
    question: 'What does the handler get when web becomes blue?',
    answers: [
      { text: 'An Update: the pod has changed.', holds: (e) => calls(e, 'a', 'Update', 'web').length > 0 },
      { text: 'A Delete, although the pod is still there.', holds: (e) => calls(e, 'a', 'Delete', 'web').length > 0 },
      { text: 'Nothing: the pod does not match the selector.', holds: (e) => calls(e, 'a', 'Update', 'web').length + calls(e, 'a', 'Delete', 'web').length === 0 },
    ],
    shows: 'To a watch with a selector, a pod that no longer matches is deleted, and one that matches again is new. The server decides that, before it sends anything.',
    links: [['Questions', 'docs/questions.md'], ['How an informer works', 'docs/how-an-informer-works.md']],
  },
  {
    id: 'slow',
    title: 'A slow handler and its buffer',
    intro: 'Handler a returns at once. Handler b needs two seconds for each call. Five pods are created at 3 s.',
    script: [start({ Resync: 0, RunEvery: 0, Handlers: [a, { Name: 'b', Slow: 2_000 }] }), create(3_000, 'web', { Count: 5, Hold: true })],
    until: 20_000,
    question: 'When does handler a get the fifth pod?',
    answers: [
      { text: 'At once: each handler has its own buffer.', holds: (e) => (calls(e, 'a', 'Add')[4]?.at ?? Infinity) < 4_000 },
      { text: 'After about ten seconds: the handlers take turns.', holds: (e) => (calls(e, 'a', 'Add')[4]?.at ?? Infinity) >= 4_000 },
    ],
    shows: 'Each handler has its own listener with a buffer that grows without a limit. A slow handler delays itself, costs memory, and sees objects late. It delays neither the store nor the others.',
    links: [['Questions', 'docs/questions.md'], ['07-workqueue', '07-workqueue']],
  },
  {
    id: 'own',
    title: 'Your own write, and the lister',
    intro: 'A controller creates a pod. The call returns, and the next line of code asks the lister for that pod.',
    script: [start({ Resync: 0, RunEvery: 0 }), [3_000, { Do: 'own', Name: 'mine' }]],
    until: 8_000,
    question: 'What does the lister say?',
    answers: [
      { text: 'It has the pod: the write went through this program.', holds: (e) => e.some((x) => x.stage === 'store' && x.kind === 'Get' && x.text === 'found') },
      { text: 'Not found: the write has to come back by the watch first.', holds: (e) => e.some((x) => x.stage === 'store' && x.kind === 'Get' && x.text === 'not found') },
    ],
    shows: 'Your own writes arrive by the watch, like all others. How long that takes is not guaranteed: here the lister is asked in the same moment. A controller must not depend on either answer.',
    links: [['06-lister', '06-lister'], ['Reading your own writes', 'docs/synced.md#reading-your-own-writes']],
  },
  {
    id: 'workqueue',
    title: 'The work queue',
    intro: 'A handler adds the key of a pod to a work queue. Its worker needs one second for each key, and fails the first two times. A pod that is created gets five writes in half a second.',
    script: [start({ Resync: 0, RunEvery: 0, Handlers: [b], Worker: { Takes: 1_000, Fails: 2 } }), create(2_000, 'nginx')],
    until: 15_000,
    question: 'The handler adds the key five times. How many times does the worker get it?',
    answers: [
      { text: 'Five times, and twice more for the failures.', holds: (e) => e.filter((x) => x.stage === 'work' && x.kind === 'Get').length >= 7 },
      { text: 'Fewer: a key that waits is in the queue once.', holds: (e) => e.filter((x) => x.stage === 'work' && x.kind === 'Get').length < 7 },
    ],
    shows: 'The queue holds keys, each at most once, and no two workers get the same key at the same time. After a failure AddRateLimited adds it again, later each time.',
    links: [['07-workqueue', '07-workqueue'], ['Questions', 'docs/questions.md#the-queues-length-is-0-where-is-the-waiting-work']],
  },
]

export const link = (path: string) => {
  const [file, anchor] = path.split('#')
  return repository + (file.endsWith('.md') ? file : file + '/README.md') + (anchor ? '#' + anchor : '')
}
