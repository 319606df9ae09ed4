"""Owns the HTML of the hosted pages."""

_STYLE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Test payment</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; color: #1d2733; background: #f3f5f8; margin: 0 }
  main { max-width: 34rem; margin: 2rem auto; padding: 1.5rem 2rem; background: #fff;
         border: 1px solid #d8dee6; border-radius: 8px }
  .test { background: #fff4d6; border: 1px solid #e6cf8f; border-radius: 4px; padding: .2rem .6rem;
          font-size: .85rem; display: inline-block }
  h1 { font-size: 1.5rem; margin: .8rem 0 }
  table { width: 100%; border-collapse: collapse; margin-bottom: 1rem }
  td { padding: .3rem 0; border-bottom: 1px solid #e6eaef }
  td:last-child { text-align: right; white-space: nowrap }
  fieldset { border: 1px solid #d8dee6; border-radius: 6px; margin: 1rem 0; padding: .5rem 1rem }
  label { display: block; padding: .15rem 0 }
  code { font-size: .95em }
  input[type=email] { width: 100%; box-sizing: border-box; padding: .5rem; font: inherit;
                      border: 1px solid #b8c2ce; border-radius: 4px }
  .error { color: #8f1d1d; background: #fdeaea; border: 1px solid #eec0c0; border-radius: 4px;
           padding: .5rem .8rem }
  .buttons { display: flex; gap: .6rem; flex-wrap: wrap }
  button { font: inherit; padding: .55rem 1.1rem; border-radius: 5px; border: 1px solid #b8c2ce;
           background: #fff; color: inherit; cursor: pointer }
  button.main { background: #1f5fbf; border-color: #1f5fbf; color: #fff }
  button:focus-visible, input:focus-visible { outline: 3px solid #8ab4f0; outline-offset: 1px }
</style>
</head>
<body>
<main>
<p class="test">Sandbox: no real money</p>
"""

_END = """
</main>
</body>
</html>
"""

PAY = (
    _STYLE
    + """
{% if total %}
<h1 id="amount">{{ total }}</h1>
<table>
{% for name, quantity, amount in items %}
  <tr><td>{{ name }}{% if quantity > 1 %} &times; {{ quantity }}{% endif %}</td>
      <td>{{ amount }}</td></tr>
{% endfor %}
</table>
{% else %}
<h1>Save a card</h1>
<p>Nothing is charged now. The card will be used for later payments.</p>
{% endif %}
{% if error %}<p class="error" role="alert">{{ error }}</p>{% endif %}
<form method="post">
  {% if not session.customer_email %}
  <label for="email">E-mail</label>
  <input type="email" id="email" name="email" value="{{ email }}" autocomplete="email">
  {% else %}
  <p>{{ session.customer_email }}</p>
  {% endif %}
  {% if twint %}
  <fieldset>
    <legend>TWINT</legend>
    <label>
      <input type="radio" name="card" value="twint"{% if chosen == "twint" %} checked{% endif %}>
      Pay in the TWINT app (the next page stands for it)
    </label>
  </fieldset>
  {% endif %}
  {% if cards %}
  <fieldset>
    <legend>Test card</legend>
    {% for card in cards %}
    <label>
      <input type="radio" name="card" value="{{ card.number }}"
        {%- if card.number == chosen %} checked{% endif %}>
      <code>{{ card.number[:4] }} {{ card.number[4:8] }} {{ card.number[8:12] }}
        {{- " " }}{{ card.number[12:] }}</code>
      {{ card.label }}
    </label>
    {% endfor %}
  </fieldset>
  {% endif %}
  <div class="buttons">
    <button class="main" name="action" value="pay">
      {%- if total %}Pay {{ total }}{% else %}Save card{% endif %}</button>
    <button name="action" value="decline">Decline</button>
    <button name="action" value="cancel" formnovalidate>Cancel</button>
  </div>
</form>
"""
    + _END
)

AUTHENTICATE = (
    _STYLE
    + """
<h1>Confirm the payment of {{ amount }}</h1>
<p>The bank wants the card's holder to confirm.</p>
<form method="post" class="buttons">
  <button class="main" name="action" value="complete">Complete</button>
  <button name="action" value="fail">Fail</button>
</form>
"""
    + _END
)

TWINT = (
    _STYLE
    + """
{% if amount %}
<h1>Pay {{ amount }} with TWINT</h1>
{% else %}
<h1>Let later payments be made with TWINT</h1>
{% endif %}
<p>This page stands for the TWINT app. Closing it gives the payment up without an answer.</p>
<form method="post" class="buttons">
  <button class="main" name="action" value="pay">Confirm</button>
  <button name="action" value="decline">Decline</button>
</form>
"""
    + _END
)

MESSAGE = _STYLE + "<h1>{{ title }}</h1>\n<p>{{ text }}</p>\n" + _END
