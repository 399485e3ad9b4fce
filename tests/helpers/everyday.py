"""Everyday sentences in eight languages of Latin script, written for these tests."""

from __future__ import annotations

EVERYDAY = {
    "French": """
        Ce matin il faisait si froid que la voiture n'a pas démarré.
        Je suis tellement contente de revoir ma sœur après deux ans !
        Le train a encore une heure de retard, j'en ai marre.
        Merci à toute l'équipe pour cette belle soirée.
        On mange quoi ce soir, des pâtes ou une salade ?
        Mon chat dort sur le canapé depuis ce matin.
        Le nouveau café du quartier est vraiment très bon.
        Bon anniversaire à mon meilleur ami, je t'aime fort !
        Quelle déception, le concert a été annulé à la dernière minute.
        Les enfants ont adoré leur journée à la plage.
        Il pleut toujours quand je n'ai pas de parapluie.
        Le match était nul, notre équipe n'a rien fait.
        Je ne comprends pas pourquoi personne ne répond au téléphone.
        Enfin les vacances, plus de réveil pendant deux semaines !
        Nous avons fait une promenade dans la forêt avec le chien.
        Elle a pleuré toute la nuit à cause de son examen.
        Regardez ce coucher de soleil, c'est magnifique.
        Le service dans ce restaurant était lent et froid.
        Un petit gâteau au chocolat pour bien finir la journée.
        J'ai perdu mes clés et je suis devant la porte.
    """,
    "German": """
        Heute Morgen war es so kalt, dass das Auto nicht ansprang.
        Ich freue mich sehr, meine Schwester nach zwei Jahren wiederzusehen!
        Der Zug hat schon wieder eine Stunde Verspätung, mir reicht es.
        Danke an das ganze Team für diesen schönen Abend.
        Was essen wir heute Abend, Nudeln oder Salat?
        Meine Katze schläft seit heute früh auf dem Sofa.
        Das neue Café in unserer Straße ist wirklich sehr gut.
        Alles Gute zum Geburtstag an meinen besten Freund!
        So eine Enttäuschung, das Konzert wurde in letzter Minute abgesagt.
        Die Kinder hatten einen wunderbaren Tag am Strand.
        Es regnet immer, wenn ich keinen Schirm dabei habe.
        Das Spiel war schlecht, unsere Mannschaft hat nichts gezeigt.
        Ich verstehe nicht, warum niemand ans Telefon geht.
        Endlich Urlaub, zwei Wochen lang kein Wecker mehr!
        Wir waren mit dem Hund im Wald spazieren.
        Sie hat wegen der Prüfung die ganze Nacht geweint.
        Schaut euch diesen Sonnenuntergang an, er ist herrlich.
        Die Bedienung in diesem Lokal war langsam und unfreundlich.
        Ein kleiner Schokoladenkuchen zum Abschluss des Tages.
        Ich habe meine Schlüssel verloren und stehe vor der Tür.
    """,
    "Spanish": """
        Esta mañana hacía tanto frío que el coche no arrancó.
        ¡Estoy muy feliz de ver a mi hermana después de dos años!
        El tren llega otra vez con una hora de retraso, estoy harto.
        Gracias a todo el equipo por esta noche tan bonita.
        ¿Qué cenamos hoy, pasta o una ensalada?
        Mi gato duerme en el sofá desde esta mañana.
        La nueva cafetería del barrio es realmente muy buena.
        ¡Feliz cumpleaños a mi mejor amigo, te quiero mucho!
        Qué decepción, cancelaron el concierto en el último minuto.
        A los niños les encantó su día en la playa.
        Siempre llueve cuando no llevo paraguas.
        El partido fue malo, nuestro equipo no hizo nada.
        No entiendo por qué nadie contesta el teléfono.
        ¡Por fin vacaciones, dos semanas sin despertador!
        Fuimos a pasear por el bosque con el perro.
        Ella lloró toda la noche por culpa del examen.
        Miren este atardecer, es una maravilla.
        El servicio en ese restaurante fue lento y frío.
        Un pastelito de chocolate para terminar bien el día.
        Perdí las llaves y estoy delante de la puerta.
    """,
    "Italian": """
        Stamattina faceva così freddo che la macchina non è partita.
        Sono felicissima di rivedere mia sorella dopo due anni!
        Il treno ha di nuovo un'ora di ritardo, non ne posso più.
        Grazie a tutta la squadra per questa bella serata.
        Che cosa mangiamo stasera, pasta o insalata?
        Il mio gatto dorme sul divano da stamattina.
        Il nuovo bar del quartiere è davvero molto buono.
        Buon compleanno al mio migliore amico, ti voglio bene!
        Che delusione, il concerto è stato annullato all'ultimo minuto.
        I bambini hanno adorato la loro giornata al mare.
        Piove sempre quando non ho con me l'ombrello.
        La partita era brutta, la nostra squadra non ha fatto niente.
        Non capisco perché nessuno risponde al telefono.
        Finalmente le vacanze, due settimane senza sveglia!
        Abbiamo fatto una passeggiata nel bosco con il cane.
        Ha pianto tutta la notte per colpa dell'esame.
        Guardate questo tramonto, è una meraviglia.
        Il servizio in quel ristorante era lento e freddo.
        Un piccolo dolce al cioccolato per finire bene la giornata.
        Ho perso le chiavi e sono davanti alla porta.
    """,
    "Portuguese": """
        Hoje de manhã estava tão frio que o carro não pegou.
        Estou muito feliz por rever a minha irmã depois de dois anos!
        O comboio está outra vez com uma hora de atraso, já chega.
        Obrigado a toda a equipa por esta noite tão bonita.
        O que vamos comer hoje, massa ou salada?
        O meu gato dorme no sofá desde manhã.
        O novo café do bairro é mesmo muito bom.
        Feliz aniversário para o meu melhor amigo, gosto muito de ti!
        Que pena, o concerto foi cancelado à última hora.
        As crianças adoraram o seu dia na praia.
        Chove sempre quando não tenho guarda-chuva.
        O jogo foi ruim, nosso time não fez nada.
        Não entendo por que ninguém atende o telefone.
        Até que enfim férias, duas semanas sem despertador!
        Fomos passear na floresta com o cachorro.
        Ela chorou a noite inteira por causa da prova.
        Olhem este pôr do sol, é uma maravilha.
        O serviço naquele restaurante era lento e frio.
        Um bolinho de chocolate para terminar bem o dia.
        Perdi as chaves e estou em frente à porta.
    """,
    "Dutch": """
        Vanmorgen was het zo koud dat de auto niet startte.
        Ik ben heel blij dat ik mijn zus na twee jaar weer zie!
        De trein heeft alweer een uur vertraging, ik ben het zat.
        Bedankt aan het hele team voor deze mooie avond.
        Wat eten we vanavond, pasta of een salade?
        Mijn kat slaapt al sinds vanmorgen op de bank.
        Het nieuwe café in onze straat is echt heel goed.
        Gefeliciteerd met je verjaardag, mijn beste vriend!
        Wat een teleurstelling, het concert werd op het laatste moment afgelast.
        De kinderen hadden een heerlijke dag aan het strand.
        Het regent altijd als ik geen paraplu bij me heb.
        De wedstrijd was slecht, onze ploeg heeft niets laten zien.
        Ik begrijp niet waarom niemand de telefoon opneemt.
        Eindelijk vakantie, twee weken lang geen wekker meer!
        We hebben met de hond in het bos gewandeld.
        Ze heeft de hele nacht gehuild vanwege haar examen.
        Kijk eens naar deze zonsondergang, wat een plaatje.
        De bediening in dat restaurant was traag en onvriendelijk.
        Een klein stukje chocoladetaart om de dag goed af te sluiten.
        Ik ben mijn sleutels kwijt en sta voor de deur.
    """,
    "Indonesian": """
        Tadi pagi dingin sekali sampai mobil tidak mau menyala.
        Aku senang sekali bertemu kakakku lagi setelah dua tahun!
        Kereta terlambat satu jam lagi, aku sudah bosan menunggu.
        Terima kasih untuk semua tim atas malam yang indah ini.
        Kita makan apa malam ini, mie atau nasi goreng?
        Kucing saya tidur di sofa sejak tadi pagi.
        Kafe baru di dekat rumah kami benar-benar enak.
        Selamat ulang tahun untuk sahabat terbaikku!
        Kecewa banget, konsernya dibatalkan pada menit terakhir.
        Anak-anak sangat menikmati hari mereka di pantai.
        Selalu hujan kalau saya tidak membawa payung.
        Pertandingannya jelek, tim kita tidak berbuat apa-apa.
        Saya tidak mengerti kenapa tidak ada yang menjawab telepon.
        Akhirnya liburan juga, dua minggu tanpa alarm!
        Kami berjalan-jalan di hutan dengan anjing.
        Dia menangis semalaman karena ujian itu.
        Lihat matahari terbenam ini, indah sekali.
        Pelayanan di restoran itu lambat dan tidak ramah.
        Sepotong kue cokelat kecil untuk menutup hari ini.
        Kunci saya hilang dan sekarang saya di depan pintu.
    """,
    "Turkish": """
        Bu sabah hava o kadar soğuktu ki araba çalışmadı.
        İki yıl sonra kardeşimi gördüğüm için çok mutluyum!
        Tren yine bir saat gecikti, artık bıktım.
        Bu güzel akşam için bütün ekibe teşekkürler.
        Bu akşam ne yiyoruz, makarna mı yoksa salata mı?
        Kedim sabahtan beri kanepede uyuyor.
        Mahalledeki yeni kafe gerçekten çok güzel.
        En iyi arkadaşımın doğum günü kutlu olsun!
        Ne büyük hayal kırıklığı, konser son dakikada iptal edildi.
        Çocuklar plajdaki günlerini çok sevdi.
        Şemsiyem olmadığı zaman hep yağmur yağıyor.
        Maç çok kötüydü, takımımız hiçbir şey yapmadı.
        Neden kimse telefona cevap vermiyor anlamıyorum.
        Sonunda tatil, iki hafta boyunca çalar saat yok!
        Köpekle birlikte ormanda yürüyüşe çıktık.
        Sınav yüzünden bütün gece ağladı ama geçti.
        Şu gün batımına bakın, ne kadar güzel.
        O lokantadaki servis çok yavaş ve kötüydü.
        Günü güzel bitirmek için küçük bir çikolatalı pasta.
        Anahtarlarımı kaybettim ve şimdi kapının önündeyim.
    """,
}
