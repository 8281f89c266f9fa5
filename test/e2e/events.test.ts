/** `ctr events` while things happen. */
import { usePair } from '../helpers/pair.ts';

const { test, both, ours } = usePair();

/** Without the marks by which a feed is known to stand. */
const told = (lines: readonly string[], namespace: string): string[] =>
  lines.filter((line) => !line.includes(' /namespaces/') && line.includes(` ${namespace} `));

const topicsOf = (said: string): string[] => [...said.matchAll(/ (\/\S+) \{/g)].map(([, topic]) => topic!);

test('the life of a container, in order', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const events = await side.events();
    await side.must(['run', '-d', image, 'box', 'sleep', '1000']);
    await events.until(/\/tasks\/start/);
    await side.must(['tasks', 'exec', '-d', '--exec-id', 'second', 'box', 'sleep', '1000']);
    await events.until(/\/tasks\/exec-started/);
    await side.must(['tasks', 'kill', '--exec-id', 'second', '-s', '9', 'box']);
    await events.until(/\/tasks\/exit .*second/);
    await side.ctr(['tasks', 'rm', '--exec-id', 'second', 'box']);
    await side.must(['tasks', 'pause', 'box']);
    await events.until(/\/tasks\/paused/);
    await side.must(['tasks', 'resume', 'box']);
    await events.until(/\/tasks\/resumed/);
    await side.must(['containers', 'label', 'box', 'a=b']);
    await side.must(['tasks', 'kill', '-s', '9', 'box']);
    await events.until(/\/tasks\/exit .*"id":"box"/);
    await side.must(['tasks', 'rm', 'box']);
    await events.until(/\/tasks\/delete/);
    await side.must(['containers', 'rm', 'box']);
    await events.until(/\/containers\/delete/);
    for (const line of told(events.lines, side.namespace)) side.note(line);
  });
  t.deepEqual(topicsOf(said), [
    '/snapshot/prepare',
    '/containers/create',
    '/tasks/create',
    '/tasks/start',
    '/tasks/exec-added',
    '/tasks/exec-started',
    '/tasks/exit',
    '/tasks/paused',
    '/tasks/resumed',
    '/containers/update',
    '/tasks/exit',
    '/tasks/delete',
    '/snapshot/remove',
    '/containers/delete',
  ]);
  t.regex(said, /\/tasks\/exit \{"container_id":"box","id":"second","pid":PID,"exit_status":137,"exited_at":"TIME"\}/);
  t.regex(said, /\/tasks\/exit \{"container_id":"box","id":"box","pid":PID,"exit_status":137,"exited_at":"TIME"\}/);
});

test('a run to its end: create before start before exit before delete, each once', async (t) => {
  const runs = 8;
  const said = await both(t, async (side) => {
    const image = await side.image();
    const events = await side.events();
    const ids = Array.from({ length: runs }, (_, index) => `r${index}`);
    await Promise.all(ids.map((id, index) => side.ctr(['run', '--rm', image, id, 'sh', '-c', `exit ${index}`])));
    for (const id of ids) await events.until(new RegExp(`/containers/delete {"id":"${id}"}`));
    for (const id of ids) {
      const mine = told(events.lines, side.namespace).filter((line) => line.includes(`"${id}"`));
      const topics = mine.map((line) => / (\/\S+) /.exec(line)![1]!);
      side.note(
        `${id}: ${topics.join(' ')} ${/"exit_status":\d+/.exec(mine.find((line) => line.includes('/tasks/exit'))!)}`,
      );
    }
  });
  for (let index = 0; index < runs; index += 1) {
    const order = '/tasks/create /tasks/start /tasks/exit /tasks/delete';
    t.regex(said, new RegExp(`r${index}: \\S+ \\S+ ${order} .* ${index === 0 ? 'null' : `"exit_status":${index}`}\n`));
  }
});

test('images and snapshots', async (t) => {
  const said = await both(t, async (side) => {
    const events = await side.events();
    const image = await side.image();
    await side.must(['images', 'label', image, 'a=b']);
    await side.must(['images', 'tag', image, 'docker.io/library/other:1']);
    await side.must(['containers', 'create', image, 'box']);
    await side.must(['containers', 'rm', 'box']);
    await side.must(['images', 'rm', '--sync', image, 'docker.io/library/other:1']);
    await events.until(/\/images\/delete .*other:1/);
    // Which of two that are collected at once goes first is nobody's promise.
    const lines = told(events.lines, side.namespace);
    for (const line of lines.filter((each) => !each.includes('/snapshot/remove')))
      side.note(line.replace(/extract-\S+/g, 'EXTRACT'));
  });
  t.deepEqual(topicsOf(said), [
    '/images/create',
    ...['/snapshot/prepare', '/snapshot/commit'],
    ...['/snapshot/prepare', '/snapshot/commit'],
    '/images/update',
    '/images/create',
    '/snapshot/prepare',
    '/containers/create',
    '/containers/delete',
    '/images/delete',
    '/images/delete',
  ]);
  t.regex(said, /\/images\/update \{"name":"docker.io\/library\/box:1","labels":\{"a":"b"\}\}\n/);
});

test('filters', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const feeds = {
      exits: await side.events('topic=="/tasks/exit"'),
      tasks: await side.events('topic~="^/tasks/"'),
      slashes: await side.events('topic~=/^.tasks.(start|exit)$/'),
      one: await side.events(`namespace==${side.namespace},topic~=tasks,event.container_id==one`),
      either: await side.events('topic=="/containers/create"', 'topic=="/tasks/delete"'),
      not: await side.events(`namespace==${side.namespace},topic~=tasks,topic!="/tasks/start"`),
      id: await side.events('event.id==two'),
      image: await side.events(`event.image=="${image}"`),
      runtime: await side.events('event.runtime.name==io.containerd.runc.v2'),
      elsewhere: await side.events('namespace==elsewhere'),
      bogus: await side.events('bogus==x'),
      all: await side.events(),
    };
    for (const id of ['one', 'two']) await side.ctr(['run', '--rm', image, id, 'sh', '-c', 'exit 3']);
    // What comes before the last mark is all there will be.
    await side.must(['namespaces', 'label', side.namespace, 'last=yes']);
    for (const [name, feed] of Object.entries(feeds)) {
      await feed.until(/"last":"yes"/);
      const mine = told(feed.lines, side.namespace);
      side.note(`${name}: ${mine.map((line) => / (\/\S+) /.exec(line)![1]).join(' ')}`);
    }
    for (const filter of ['topic=', 'topic==', 'topic=="unclosed', 'topic==/tasks/exit', '==x', 'a b']) {
      await side.show(['events', filter], { timeoutMs: 20_000 });
    }
  });
  t.regex(said, /exits: \/tasks\/exit \/tasks\/exit\n/);
  t.regex(said, /slashes: \/tasks\/start \/tasks\/exit \/tasks\/start \/tasks\/exit\n/);
  t.regex(said, /one: \/tasks\/create \/tasks\/start \/tasks\/exit \/tasks\/delete\n/);
  t.regex(said, /either: \/containers\/create \/tasks\/delete \/containers\/create \/tasks\/delete\n/);
  t.regex(said, /elsewhere:\n/);
});

test('filters that containerd has no answer to', async (t) => {
  // Its events have only their texts as fields, and a regular expression that does not parse is one that nothing matches.
  const said = await ours(t, async (side) => {
    const image = await side.image();
    const feeds = {
      status: await side.events('event.exit_status==3'),
      present: await side.events('event.exit_status'),
    };
    await side.ctr(['run', '--rm', image, 'one', 'sh', '-c', 'exit 3']);
    await side.must(['namespaces', 'label', side.namespace, 'last=yes']);
    for (const [name, feed] of Object.entries(feeds)) {
      await feed.until(/"last":"yes"/);
      const mine = told(feed.lines, side.namespace);
      side.note(`${name}: ${mine.map((line) => / (\/\S+) /.exec(line)![1]).join(' ')}`);
    }
    await side.show(['events', 'topic~=['], { timeoutMs: 20_000 });
  });
  t.regex(said, /status: \/tasks\/exit \/tasks\/delete\n/);
  t.regex(said, /present: \/tasks\/exit \/tasks\/delete\n/);
  t.regex(said, /filters: regular expression "\[": .*: invalid argument\nexit 1\n/);
});

test('all namespaces are heard, each by its name', async (t) => {
  const said = await both(t, async (side) => {
    const events = await side.events();
    const other = `${side.namespace}-other`;
    await side.must(['snapshots', 'prepare', 'a'], { namespace: other });
    await side.must(['snapshots', 'rm', 'a'], { namespace: other });
    side.note(await events.until(new RegExp(` ${other} /snapshot/prepare`)));
    side.note(await events.until(new RegExp(` ${other} /snapshot/remove`)));
  });
  t.regex(said, /NAMESPACE-other \/snapshot\/prepare \{"key":"a"\}\n/);
});
