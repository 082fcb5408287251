// What axe would ask of this page: names, one log, contrast of every visible text against what is behind it.
() => {
  const lum = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  const behind = (element) => {
    const chain = []; for (let e = element; e; e = e.parentElement) chain.unshift(e);
    return chain.reduce((under, e) => over(rgba(getComputedStyle(e).backgroundColor), under), [255, 255, 255]); };
  const contrast = (element) => {
    const under = behind(element), text = over(rgba(getComputedStyle(element).color), under);
    const [a, b] = [lum(text), lum(under)]; return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
  const visible = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !visible(element) || element.closest('template, .unseen, .skip, [disabled]')) continue;
    const ratio = contrast(element);
    if (ratio < 4.5) faint.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  const named = (e) => e.ariaLabel || e.innerText.trim() || e.title || e.labels?.length || e.getAttribute('aria-labelledby');
  const nameless = [...document.querySelectorAll('button, input, textarea, a, [role=button]')].filter(e => visible(e) && !named(e)).map(e => e.outerHTML);
  const body = document.querySelector('.message[data-role=assistant] .body p');
  return { faint, nameless, body: contrast(body), log: document.querySelectorAll('[role=log]').length,
    fontSize: parseFloat(getComputedStyle(body).fontSize) };
}
