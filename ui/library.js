// The Library tab: what is open stands in the address (?tab=library&doc=topic/slug#section), so that a refresh,
// the back button and a change of language keep it.
(() => {
  const shell = () => document.querySelector('.library');
  const wanted = () => new URL(location).searchParams.get('doc');
  let shown = null;

  async function bring(path) {
    const box = shell().querySelector('section');
    box.setAttribute('aria-busy', 'true');
    try {
      const answer = await fetch(path);
      box.innerHTML = await answer.text();
    } catch { box.textContent = '…'; shown = null; }
    box.removeAttribute('aria-busy');
  }

  async function open(target, push) {
    const [id, anchor] = target.split('#');
    const url = new URL(location);
    url.searchParams.set('tab', 'library');
    url.searchParams.set('doc', id);
    url.hash = anchor ? 'kb-' + anchor : '';
    if (push) history.pushState(null, '', url);
    if (shown !== id) { shown = id; await bring(`/library/${shell().dataset.lang}/${id}`); }
    for (const link of shell().querySelectorAll('.tree a')) {
      const current = link.dataset.page === id;
      link.toggleAttribute('aria-current', current);
      if (current) link.closest('details').open = true;
    }
    const place = anchor && document.getElementById('kb-' + anchor);
    if (place) place.scrollIntoView({block: 'start'});
    else if (shell().getBoundingClientRect().top < 0) shell().scrollIntoView({block: 'start'});
  }

  // A tab that finds no room in the row stands in the menu at its end; the library is the last.
  const show = (tab) => (document.querySelector(`button[data-tab-id=${tab}]`)
    ?? (tab === 'library' ? document.querySelector('.overflow-dropdown button:last-child') : null))?.click();

  // A link from another tab. The address changes first: a library that was never looked at reads it once it is mounted.
  function visit(target) {
    const [id, anchor] = target.split('#');
    const url = new URL(location);
    url.searchParams.set('tab', 'library');
    url.searchParams.set('doc', id);
    url.hash = anchor ? 'kb-' + anchor : '';
    history.pushState(null, '', url);
    show('library');
    if (shell()) open(target, false);
  }

  function ask(question) {
    show('ask');
    const box = document.querySelector('#question textarea');
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(box, question);
    box.dispatchEvent(new Event('input', {bubbles: true}));
    box.focus();
  }

  document.addEventListener('click', (event) => {
    const link = event.target.closest('a[data-page]');
    if (link) { event.preventDefault(); open(link.dataset.page, true); return; }
    const elsewhere = event.target.closest('a[href^="#page:"]');
    if (elsewhere) { event.preventDefault(); visit(elsewhere.getAttribute('href').slice('#page:'.length)); return; }
    const button = event.target.closest('.ask-page');
    if (button) { ask(button.dataset.question); return; }
    const inner = event.target.closest('.library a[href^="#kb-"]');
    if (inner) { event.preventDefault(); document.getElementById(inner.getAttribute('href').slice(1))?.scrollIntoView({block: 'start'}); }
  });

  let waiting;
  document.addEventListener('input', (event) => {
    if (!event.target.matches('.library input[type=search]')) return;
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const question = event.target.value.trim();
      if (question) { shown = null; await bring(`/library/${shell().dataset.lang}?q=${encodeURIComponent(question)}`); }
      else if (wanted()) open(wanted(), false);
    }, 250);
  });

  const restore = () => { if (shell() && wanted()) open(wanted() + (location.hash.startsWith('#kb-') ? '#' + location.hash.slice(4) : ''), false); };
  window.addEventListener('popstate', () => { show(new URL(location).searchParams.get('tab') || 'ask'); restore(); });
  // Gradio mounts a tab when it is first looked at.
  let mounted = false;
  new MutationObserver(() => { if (!mounted && shell()) { mounted = true; restore(); } })
    .observe(document.documentElement, {childList: true, subtree: true});
})();
